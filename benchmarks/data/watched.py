"""The build that the scale benchmark watches: `.. watched SOURCE OUT SETTINGS MARKUP` prints one line of JSON.

Workers import this file too, so it is as light as a command is.
"""

import json
import resource
import sys
from pathlib import Path


def main(source: str, out: str, settings: str, markup: str) -> None:
    from benchmarks.report import resident_bytes
    from sluice.data.build import build
    from sluice.data.config import IngestConfig, RefineConfig

    refine = RefineConfig.model_validate_json(settings)
    of_source = {"uri": source, **({"markup": markup} if markup else {})}
    ingest = IngestConfig.model_validate({"sources": [of_source], "workers": refine.workers})
    report = build(ingest, refine, Path(out))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    told = {
        "documents": report.refine.documents_in,
        "kept": report.refine.documents_kept,
        "cpu_s": sum(each.ru_utime + each.ru_stime for each in used),
        "largest_process_bytes": max(resident_bytes(peak=True), used[1].ru_maxrss * 1024),
        "timings": {**report.ingest.timings, **report.refine.timings},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
