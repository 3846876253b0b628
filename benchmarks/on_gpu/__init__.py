"""Everything that only a GPU can settle, in one command that resumes.

    python -m benchmarks.on_gpu --minutes 8 --out DIR        # on a CUDA machine
    python -m benchmarks.on_gpu --device cpu --minutes 1     # the same stages at toy sizes

Stages run in the order of `benchmarks.on_gpu.stages`, each in a process of its own. Every item that is finished is
kept at once, so a second call with the same folder goes on where the first ended.
"""
