"""Algorithm 1 of the DHP paper, written out: one class after another."""

import torch


def dhp_forward(h, y, weight, alpha, eta, hebb, *, training=True):
    """The logits and the new traces. Everything is (m, d) as in the paper, one column per class."""
    columns = list(hebb.unbind(1))
    if training:
        for c in y.unique().tolist():
            s = int((y == c).sum())
            if s > 0:
                h_bar = h[y == c].sum(0) / s
                rate = eta if eta.dim() == 0 else eta[:, c]
                columns[c] = (1 - rate) * columns[c] + rate * h_bar
    hebb = torch.stack(columns, 1)
    return h @ (weight + alpha * hebb), hebb.detach()
