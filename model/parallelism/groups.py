"""The process groups of a layout."""

import torch.distributed as dist

from sluice.model.parallelism.layout import Layout


class Groups:
    """This process's groups of a layout, with the methods that DeepSpeed expects of an `mpu`.

    Every process creates them, at the same time.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout, self.rank = layout, dist.get_rank()
        self.stage, self.data_rank, self.tensor_rank = layout.coordinates(self.rank)
        self.data = self._own(layout.data_groups())
        self.tensor = self._own(layout.tensor_groups())
        self.pipeline = self._own(layout.pipeline_groups())
        self.last_stage = next(ranks for ranks in layout.pipeline_groups() if self.rank in ranks)[-1]

    def _own(self, groups: list[list[int]]) -> dist.ProcessGroup:
        made = {tuple(ranks): dist.new_group(ranks) for ranks in groups}
        return next(group for ranks, group in made.items() if self.rank in ranks)

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        return self.data

    def get_data_parallel_world_size(self) -> int:
        return self.layout.data

    def get_data_parallel_rank(self) -> int:
        return self.data_rank

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        return self.tensor

    def get_model_parallel_world_size(self) -> int:
        return self.layout.tensor

    def get_model_parallel_rank(self) -> int:
        return self.tensor_rank

    get_tensor_model_parallel_group = get_model_parallel_group
    get_tensor_model_parallel_world_size = get_model_parallel_world_size
    get_tensor_model_parallel_rank = get_model_parallel_rank
