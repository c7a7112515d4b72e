"""The integer network driven by its spikes, compiled: work is done where a spike goes, and nowhere else.

The plain way is `dense.py`: every layer a convolution at every step. Yet most neurons are silent at most steps,
and a spike of ±1 needs no multiplication: it adds a row of weights to the membranes that it reaches. This room
does only that. `kernel.c` runs images, `layout.py` lays the network out for it, `build.py` compiles it, and
`loop.py` calls it and makes a record of what it leaves. One page of how things lie, and why:

*Order.* Layers only feed forward, so a layer may run all its steps before the next one begins: `BLOCK` steps of
them, as memory for spikes grows with their number. Within a layer one place of the map is done after the other,
again for all steps of the block. So the weights of a layer are read while they are in the cache, and a membrane
stays in a register from its first step to its last: it is written down only where a run has further blocks.

*Spikes* leave a place as words of 32 channels, one bit each, and become *events*: for each step and sign a list
that grows place after place. An event is a number, where the weights of its channel lie: (column · channels +
channel) · pitch bytes behind those of the row's first. `first[place]` is where the events of a place begin.

*Rows* (`sum_32` … `sum_512`). A place sees, for each row of its kernel, some neighbouring places of one row of the
map before: one stretch of the list (`Window`). Weights lie as [kernel row, kernel column, input channel, output
channel], so the whole stretch is added by one loop that does nothing but read an event, and add the row of weights
that it points at: the column of the kernel is a constant in the base address. Up to 512 channels are summed at a
time, in registers, as bytes, four times as many as of 32 bits in each, for as many rows (`crowd`) as cannot leave a
byte; then they are widened and the next bytes begin. Addition wraps around, so only final sums have to fit.

*Thresholds.* Up to 24 for a channel: every membrane counts how many it reaches, 32 neurons at a time, and the net
count moves one towards that; no branch depends on a neuron. More of them, or the published neuron, which rises and
falls at different membranes: neuron by neuron. A step in which nothing came in and nothing fired before changes
nothing, and is left out.

*The encoder.* Its image stays and its thresholds climb, so a neuron that fires has fired in every step before. Its
events are listed at the last step at which they come (`nested`), and sums run from the last step to the first, so
that each row is added once for all steps. Faults strike each step's spikes anew: they switch this off.

*Types.* Weights are bytes; bounds from weights and largest counts say whether membranes fit 16 bits or need 32
(`layout.membrane_bound`), and the kernel is compiled for each. A network that fits neither, or has real weights, is
left to dense tensors (`layout.obstacle`). Channels are padded to whole vectors (`pitch`) by ones that have weights
of 0 and thresholds that no membrane reaches, so that no loop has a rest.

*Threads* take one image after the other from a common counter, so they end together and one image starts none. Each
has a workspace of its own, kept for the next run. Totals are sums of whole numbers, so results do not depend on the
number of threads, nor on who took which image.
"""
