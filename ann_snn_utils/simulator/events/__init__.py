"""The integer network driven by its spikes, compiled: work is done where a spike goes, and nowhere else.

The plain way is `dense.py`: every layer a convolution at every step. Yet most neurons are silent at most steps,
and a spike of ±1 needs no multiplication: it adds a row of weights to the membranes that it reaches. This room
does only that. `kernel.c` runs images: spikes leave the first layer by `encoder.h`, travel by `spikes.h`, and add
up by `sums.h`; what they work on is in `task.h`. `layout.py` lays the network out for it in the arrays of
`arrays.py`, `build.py` compiles it, and `loop.py` calls it and makes a record of what it leaves. One page of how
things lie, and why:

*Order.* Layers only feed forward, so a layer may run all its steps before the next one begins: `BLOCK` steps of
them, as memory for spikes grows with their number. Within a layer one place of the map is done after the other,
again for all steps of the block. So the weights of a layer are read while they are in the cache, and a membrane
stays in a register from its first step to its last: it is written down only where a run has further blocks.
Several vectors of neurons are worked on side by side: one alone would wait for each of its comparisons. And steps
are not left out one by one: a branch that is guessed wrong costs more than looking at neurons that do nothing.

*Spikes* leave a place as words of 32 channels, one bit each. When all places of a row of the map have run, its
words are counted, and become *events*: for each step a list that grows place after place. An event is a number,
column · channels + channel, and `flip` more for a spike of −1. `marks` say where the events of a place begin; what
they reach follows from marks and words. Lists lie in slots, from which every layer behind reads them; a slot is
free when the last one has.

*Ways.* A layer has `Synapses` from one layer or several: two of a residual block, one for each part of a
concatenation. Each adds to the layer's sums by itself, with a factor for each channel (`gain`).

*Rows* (`collect`). A place sees, for each row of its kernel, some neighbouring places of one row of the map
before: one stretch of the list. Weights lie as [kernel row, kernel column, input channel, output channel], and
once more negated, so a stretch becomes addresses of rows of weights by one factor and one constant, 32 at a time;
all that is left is to add up rows. Pooling is a kernel of repeated weights, and between groups weights are 0.
Where a layer has few channels, neighbouring places are taken together (`abreast`): a row then has the weights of
each of them, one after the other, in a kernel as wide as what they all see, with zeros where one does not see. So
lists are read once for all of them, and vectors are full.

*Windows* (`sum_window`). Who reads its own channel only, by a depthwise convolution, a shortcut or a maximum,
would add rows of zeros but for one. It has the counts in its window instead, from which events are taken back step
by step: a weighted sum of them, or the largest, says how the membrane moves.

*Sums.* Rows of bytes (`sum_32` … `sum_256`) are added in registers, for as many rows (`crowd`) as cannot leave a
byte; then they are widened and the next bytes begin. Addition wraps around, so only final sums have to fit.
Ternary rows are nibbles, two channels a byte: weights 0, 1 and 2 instead of −1, 0 and 1, seven of which fill no
nibble, and what they have too much is their number. So one addition is for twice as many channels, and the nearest
cache holds twice as many rows. Twice seven are added in one turn of a loop, and lists are filled up with rows of
zeros: how often a short loop turns is guessed wrong, too.

*Thresholds.* Up to 24 for a channel: every membrane counts how many it reaches, 32 neurons at a time, and the net
count moves one towards that; no branch depends on a neuron. More of them, or the published neuron, which rises and
falls at different membranes: neuron by neuron. Behind the last step in which something comes, a step in which
nothing fired before changes nothing, and ends the block.

*The encoder.* Pixels are multiplied four at a time with weights of as many channels as a vector holds, and added
to the sums, in one instruction (VNNI); other processors take two at a time. Its image stays and its thresholds
climb, so a neuron that fires has fired in every step before. Its events are listed at the last step at which they
come (`nested`), and sums run from the last step to the first, so that each row is added once for all steps. Faults
strike each step's spikes anew: they switch this off.

*Types.* Weights are bytes; bounds from weights and largest counts say whether membranes fit 16 bits or need 32 or
64 (`layout.membrane_bound`), and the kernel is compiled for each. A network of wider or real weights is left to
dense tensors (`layout.obstacle`). Channels are padded to whole vectors (`pitch`) by ones that have weights of 0
and thresholds that no membrane reaches, so that no loop has a rest.

*Threads* take one image after the other from a common counter, so they end together. Where a large network has few
images, they share each of them (`team.h`): they take the rows of a layer's map by turns, list spikes each for
itself, and wait for each other once a layer and block. Threads are called from Python, and stay awake in the
kernel for a moment when they are done, as the next call may be near: waking one takes as long as a small image.
Totals are sums of whole numbers, so results do not depend on the number of threads, nor on who took what.
Workspaces are kept for the next run.
"""
