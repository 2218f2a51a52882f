"""Exact per-sample importances of parameters, as pure functions of a model and data.

The work is split by purpose: `estimators` says what is computed, `per_sample` chooses for each parameter how,
`closed_forms` holds the mathematics of single layers, `graph` reads what a forward pass did, `samples` handles data,
`state` leaves no traces.
"""

from avsi.importance.closed_forms import CLOSED_FORMS, ClosedForm, add_linear
from avsi.importance.estimators import fisher_diagonal, mas_importance

__all__ = ["CLOSED_FORMS", "ClosedForm", "add_linear", "fisher_diagonal", "mas_importance"]
