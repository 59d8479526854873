"""Ways to evaluate eqs. 2-4 on an input and a weight, one file each.

An engine is a module with three functions of one `Convolution`, in its layout and rounded to its `result`:

    output(convolution, input, weight, bias=None)
    input_gradient(convolution, weight, cotangent, bias=None)    (the bias is that of a transposed convolution)
    weight_gradient(convolution, input, cotangent)

and `IN_TILES`, whether it cuts an image into tiles or copies it tap by tap. Such an engine reads images through the `for_tiles`,
`for_copies` and `for_sums` of the convolution, and writes one by `room` and `put`, so that 16-bit numbers can be copied as bits.
"""

import pkgutil

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
