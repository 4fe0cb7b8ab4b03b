"""The local engine: threads that each have a task decoded and score it; results in order.

Must not know: formats. A thread that decodes and then infers keeps its processor busy whichever of the two is slower;
ONNX Runtime, NumPy and Arrow run outside the interpreter's lock, and pictures are decoded in processes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa  # type: ignore[import-untyped]

from serving.offline.items import Items, Task
from serving.offline.processes import PictureProcesses

# Tasks in the hands of each worker or waiting for it; bounds the memory.
TASKS_PER_WORKER = 3


def score_locally(
    tasks: Iterable[Task], score: Callable[[Items], pa.RecordBatch], workers: int, careful: bool = False
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of each task, in the order of the tasks.

    Args:
        tasks: read in the calling thread, a few ahead.
        score: safe to call from several threads.
        workers: threads, >= 1.
        careful: a picture may end the process that decodes it.
    """
    waiting: deque[Future[pa.RecordBatch]] = deque()
    with PictureProcesses(workers, careful) as processes, ThreadPoolExecutor(workers, "score") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(lambda task: score(processes.decode(task)), task))
                if len(waiting) > TASKS_PER_WORKER * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
