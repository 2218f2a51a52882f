"""Split MNIST in van de Ven & Tolias's three scenarios: the same five pairs of digits, asked for in three ways.

Protocols task, domain and class: "Three scenarios for continual learning" (van de Ven & Tolias 2019), Table 4. An MLP
of 400-400 ReLU units, Adam, batches of 128. The paper trains for 2000 iterations per task, this for 21 epochs, which
are 1848 to 2079 iterations, as tasks have 11,263 to 12,665 images. Task-incremental: one head per task, chosen by the
task label. Domain-incremental: one head of two outputs, even or odd. Class-incremental: one head of all digits seen so
far. Without examples or generated samples of earlier tasks nothing here learns to tell digits of different tasks apart:
that consolidation fails in the class-incremental scenario, at 20 % like fine-tuning, is the paper's result and
expected.

The paper chose strengths by a grid search for each scenario; importances are scaled otherwise here, so the numbers do
not carry over. Those below are round ones, the same in all three scenarios and not tuned. The paper has no MAS.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from avsi.experiment import Experiment, lazy_imports, main
from avsi.experiment.methods import finetune, joint, mas, online_ewc, si

if TYPE_CHECKING:
    from avsi.scenarios.build import Scenario

with lazy_imports():
    from torch.optim import Adam

    from avsi.models import MLP, GrowingHead, MultiHead
    from avsi.scenarios import split_mnist


def in_scenario(scenario: "Scenario", title: str, head: Any, paper: tuple[float, ...]) -> Experiment:
    """Put the experiment together for one scenario."""
    return Experiment(
        name=f"three_scenarios_{scenario}",
        title=f"Split MNIST, {title}",
        protocol=scenario,
        source="van de Ven & Tolias (2019), Three scenarios for continual learning, Table 4.",
        scenario=partial(split_mnist, scenario=scenario),
        model=partial(MLP, 784, (400, 400), head),
        optimizer=partial(Adam, lr=1e-3, betas=(0.9, 0.999), fused=True),
        epochs=21,
        batch_size=128,
        reset_optimizer=False,
        methods=(finetune(), si(10.0, damping=0.1), online_ewc(1000.0, labels="exact"), mas(1.0), joint()),
        paper=dict(zip(("finetune", "si", "online_ewc", "joint"), paper, strict=True)),
        trials=20,
    )


TASK = in_scenario("task", "task-incremental", MultiHead, (87.19, 99.09, 99.12, 99.66))
DOMAIN = in_scenario("domain", "domain-incremental", 2, (59.21, 65.36, 64.32, 98.42))
CLASS = in_scenario("class", "class-incremental", GrowingHead, (19.90, 19.99, 19.96, 97.94))

if __name__ == "__main__":
    main(TASK, DOMAIN, CLASS)
