"""What every word of a report means. Printed in each of them, so that no figure travels without its definition."""

from __future__ import annotations

DEFINITIONS: dict[str, str] = {
    "peak": (
        "The most tensor bytes alive at one instant of a traced training step; among equal instants the first. Its "
        "step, block and phase are part of the figure. The ledger is opened before the network is built, so nothing "
        "was alive before it looked."
    ),
    "split at the peak": (
        "Those same bytes sorted by what they are for, at that one instant. Every byte has exactly one role, so the "
        "roles sum to the peak exactly; what is retained or other is listed by its holder."
    ),
    "own peak": (
        "The most that one role reaches by itself at any instant of any traced step. A role may be absent from the "
        "split merely because the peak fell elsewhere; its own peak shows it nevertheless."
    ),
    "unseen": (
        "Bytes that autograd, a gradient or the optimizer's state shows to be there, but that no op was seen to make: "
        "the work ran on a thread that the ledger cannot follow, or before it opened. They count from the moment they "
        "are found, so the true peak may be higher. Threads that the step starts, and tasks that it gives to a thread "
        "pool, are followed. Child processes, replays of CUDA graphs and memory that an extension takes by itself are "
        "not measured; the first two are counted and named."
    ),
    "parameters, gradients, optimizer": (
        "Known by the identity of their storage: the module's parameters, whatever accumulates into them, and what "
        "the optimizer keeps from one step to the next (its scratch is temporary). Identities are taken at every "
        "boundary of a phase, and a storage keeps the strongest one: parameters, then optimizer, then gradients."
    ),
    "activations": (
        "Storages which autograd, or the frame of a checkpoint, saved for a backward pass, wherever they were made: by "
        "a forward pass, a recomputation, or a backward pass that is itself to be differentiated. One that is still "
        "kept when its step has ended becomes retained."
    ),
    "retained": (
        "Any other storage without an identity that outlives the phase that made it, such as logits or a loss that "
        "the training loop still holds, or a graph that leaked."
    ),
    "weight casts": "Copies of parameters in a lower precision that autocast keeps.",
    "temporaries": "What is made and freed inside one phase, the optimizer's scratch included.",
    "buffers, inputs, ema, other": (
        "The module's buffers, the batch, a moving average of the weights, and what is left; the random states that "
        "checkpointing stashes are other, and so are the numbers of Python (8 bytes each) that autograd keeps of an "
        "expression. They are shown, never folded away."
    ),
    "device peak": (
        "The device allocator's own peak over a step that was not traced, after a reset. It equals the ledger's peak "
        "plus the kernel workspace; that remainder also holds any shift of the instant of the peak."
    ),
    "residency": (
        "What a block-wise method keeps on the device for the blocks it is not training. all: everything. state: their "
        "parameters, but not their optimizer state. active: nothing but the block in training and the shared parts. "
        "What is off the device is in pinned host memory on CUDA and in a file, with no live tensor, on the CPU. The "
        "transfer is inside the traced step, and its bytes and its share of the time are reported."
    ),
    "shared parts": (
        "What every block uses: embedding, target table, time embedding, final norm, head. shared = joint trains them "
        "with whichever block is active, as the released code of DiffusionBlocks does; per_block gives each block its "
        "own copy."
    ),
    "optimizer implementation": (
        "Which of the optimizer's implementations ran. It decides the scratch of an update (foreach keeps lists of "
        "temporaries, fused keeps none), so it can move a peak by more than a method does."
    ),
    "diverged": (
        "A training whose loss, parameters or figure of merit were no finite numbers. The loss of every step is looked "
        "at, parameters and metric at each evaluation; training ends there, and the row says what was seen first. The "
        "cell has no part in a mean, a test or a ratio, so n tells how many seeds are left."
    ),
    "layer update": (
        "One optimizer update of one layer. A step of backprop on L layers makes L of them; greedy training divides "
        "the budget evenly over its stages."
    ),
    "budget": (
        "What was made equal between the methods: layer updates, samples, FLOPs or seconds. The other three are then "
        "unequal, and are printed beside it."
    ),
    "FLOPs": (
        "Floating-point operations of the ops with a known formula (a multiply-add is two), by phase, in the same "
        "traced steps; a step of a block-wise method is the mean over its blocks. Ops without a formula are named; a "
        "figure that leaves any out has ≥ before it and is compared with no other."
    ),
    "attention kernel": (
        "The family of kernel that computed attention: flash, efficient, cudnn, or math for products and a softmax of "
        "their own. Flash and efficient compute the scores again in the backward and count as doing so; math keeps "
        "them. FLOPs and activations of two runs compare within one family."
    ),
    "train time": (
        "Wall time of the training loop as it ran, evaluations left out, whatever other cells ran beside it. It says "
        "what this run took; to compare methods there is samples per second."
    ),
    "inference peak, inference FLOPs": (
        "Of one prediction on a training batch, from the traced pass, with optimizer state released. A method that "
        "predicts in several steps pays for all of them."
    ),
    "samples per second": (
        "From a separate pass without a ledger, alone on the machine, variants interleaved in rounds: the median over "
        "the rounds. Its ratio to backprop is the median of the ratios taken round by round."
    ),
    "parts of the network": (
        "The bytes at the peak by the part that they belong to: its layers, which blocks divide, and embedding, head "
        "and logits, which are there whole for any number of blocks. A part has what its modules own and what is made "
        "in them; logits are a head's output and what softmax and cross-entropy make of it. Each byte is in one part."
    ),
    "ways of predicting": (
        "The same trained network asked in several ways: by its first block alone; by all of it, which is the method's "
        "own; and as N draws, the mean of the softmaxes at the ends of the Euler chain over N draws of its starting "
        "noise. That is a mixture of distributions, so a distribution, and its likelihood is scored as any other's."
    ),
    "bits per character, perplexity": (
        "Minus the log-likelihood of held-out text: in bits over its characters, which compares over vocabularies, and "
        "as the exponential of its mean a token, which compares within one. Of an autoregressive model every token is "
        "predicted from the true ones before it in its window, and the figure is exact. Of masked diffusion it is the "
        "evidence lower bound, so an upper bound on the bits, and it is not comparable with an exact figure."
    ),
    "mean ± sd (n)": (
        "Over n seeds, with the sample standard deviation (n − 1). With one seed there is no deviation. Memory and "
        "FLOPs are those of the one seed with the largest peak, so that a split sums to the peak beside it."
    ),
    "not measured": "A figure that could not be had is left empty and its reason is given; 0 is a measured zero.",
}
