"""LitServe around the bare pipeline. Apart, since its processes find the class by the module's name, and LitServe need
not be installed for anything else."""

from typing import Any

import litserve

from benchmarks.serving.rig.plain import Make, answer, bare


class Pictures(litserve.LitAPI):  # type: ignore[misc,name-defined]
    """A picture for a seed. model: catalogue id"""

    model = ""
    make: Make

    def setup(self, device: str) -> None:
        self.make = bare(self.model)

    def decode_request(self, request) -> int:  # type: ignore[no-untyped-def]  # LitServe reads annotations as a schema
        return int(request["seed"])

    def predict(self, seed: int) -> bytes:
        return self.make(seed)

    def encode_response(self, data: bytes) -> dict[str, Any]:
        return answer(data)
