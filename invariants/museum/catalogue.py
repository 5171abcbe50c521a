"""The bugs that real implementations of the method, or of what it stands on, have had, by number.

A number is never given anew: those that are missing belong to what the suite does not look at yet.
"""

CATALOGUE: dict[int, str] = {
    1: "The clip covers the deployed vectors only: the quarantine passes unlimited, and the norm that is logged "
    "is not that of the gradient that is used.",
    2: "Routing forces other settings of the split than erasing: the arms differ before the optimizer is reached.",
    3: "A docstring promises that routing trains what vanilla training would have trained, under AdamW with a "
    "state for each of the two sets.",
    4: "The clip comes after the split, and erasing is clipped by its own, shorter norm: deleting the quarantine "
    "no longer gives the model that erasing trains.",
    5: "The gradient is split per micro-batch, per rank or per source and then summed; a rectified gate is not "
    "additive.",
    6: "Without routing the quarantine's gradient is zeros instead of None, so decay, momentum or noise moves it.",
    7: "The rows of the basis are not orthonormal: more than the component along the basis is removed.",
    8: "The sign of the basis is flipped, and the gate removes motion away from the hack.",
    9: "The share that is hack-ward is a signed sum over axes instead of the length of the rectified coefficients.",
    10: "Weight decay acts on one of the two sets.",
    11: "Momentum gathered under one basis goes on pushing after the basis was replaced.",
    12: "One part of the split is written in place, and the other is computed from what it left.",
    13: "A restored optimizer state reaches the parameters in another order, or another implementation of the same "
    "optimizer takes over.",
    14: "The clip is configured and never takes effect: its limit is not passed on, or the norm has exhausted a "
    "generator of parameters.",
    15: "The norm after the clip is logged under the name of the norm before it.",
    16: "An ablation is not undone when its body raises, or a nested one undoes it too early or with the wrong values.",
    17: "An ablation sets a factor to zero whose initial value was subtracted elsewhere, so it changes more than "
    "it means.",
    18: "The quarantine is still in the weights that are saved or merged for deployment.",
    19: "A decomposition is cached by something other than the content of the weight, and outlives a change of it.",
    20: "A bfloat16 weight is decomposed in bfloat16.",
    21: "The gradient buffer is not cleared between two sources of rollouts, and the first is counted twice.",
    22: "Advantages are divided by the group's standard deviation or the loss by the completion's length, where "
    "the objective has neither.",
    23: "Padding is masked by token id, and an end-of-sequence token that shares the id is not trained.",
    24: "A group whose rewards are all equal is not left out, and gives noise or NaN.",
    25: "The loss of an accumulated batch is scaled by another count than the batch's.",
    26: "Prompt tokens enter the loss by an index that is off by one.",
    27: "While a basis is extracted, gradients are cleared for each pair instead of each completion.",
    28: "A basis is refreshed through a live quarantine, and turns away from the hack.",
    29: "Axes are oriented by the sign of a mean, which one outlier among the pairs decides.",
    30: "Correctness is read from the exit code, and os._exit(0) passes everywhere.",
    31: "Success is a fixed marker that a submission can print, or a comparison that a subclass of int decides.",
    32: "The true label of a rollout is used in the reward or in the gate.",
    33: "A teacher's rollouts are stored with the grade that can be fooled as if it were the true one.",
    34: "Evaluation draws from the training's random state, and a run that is evaluated is another run.",
    35: "A resumed run begins its schedule, its order of the data or its second moments anew.",
    36: "The table of paired differences selects one arm by its name, and routed runs vanish from it.",
    37: "A column is inserted in the middle, and whoever reads by index reads its neighbour.",
    38: "The name of a column is used again for another quantity.",
    39: "The plot of routing shows its hacks during training, although the claim is about the model without its "
    "quarantine.",
    40: "A mean over several seeds is compared with a single one.",
    41: "The decomposition is computed under autograd, and the frozen basis carries a graph.",
    42: "A matrix that is not contiguous is handed to a format that refuses it.",
    45: "One-sided routing at a constant learning rate: the running model trains well, while the rectified noise "
    "drives the deployed one away.",
    46: "An update or displacement is split with a basis of a step ago, or measured from the wrong start after a "
    "resume.",
}
"""number -> what goes wrong."""
