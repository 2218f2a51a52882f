"""How the Fisher information is computed: the table of van de Ven (2025), on split MNIST and split CIFAR-10.

"On the computation of the Fisher information in continual learning", ICLR blogposts 2025: Online EWC with gamma = 1,
task-incremental. Split MNIST: MLP of 400-400 ReLU units, Adam with learning rate 0.001, its state kept, 2000 batches of
128 in each task; 30 seeds, each with classes in an order of its own, and for each method the best lambda of 10^0, 10^1,
..., 10^13 on test data. Here lambda is chosen on validation data of seed 0 (a tenth of each class's training images is
held out throughout):

    python reproductions/fisher_table.py --sweep exact.strength=log:1e0:1e12:13 --trials 5

His penalty has a factor 1/2 that this one has not: his lambda is twice as large. Columns of his table that methods here
stand for: "exact" (the expectation over labels), "exact_500" (the same on 500 samples of each task), "sampled" (one
label drawn from the model's output), "empirical" (the data's labels) and "batched" (squares of the gradients of
mini-batches). "reversed" is the logits reversal of EWC-DR (CVPR 2026), here with exact per-sample gradients; "predicted"
takes the most likely label (FACIL). Trials record the seconds that each task took, importances included.

Split CIFAR-10: a reduced ResNet-18 with 20 channels from scratch, batches of 256, 5000 in each task, learning rate
0.0001.
"""
