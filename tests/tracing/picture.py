"""Draws the trace of one generation in docs/, as a whole system tells it to a collector.

python -m tests.tracing.picture
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from lockstep import Lockstep
from tests.acceptance.conftest import ROOT, running, stack_folder
from tests.integration.webhooks.receiver import Receiver, receiving
from tests.tracing.collector import Collector, Span, Trace, collecting
from tests.waiting import until

IMAGE: Final = ROOT / "docs" / "images" / "trace.png"
_MODELS: Final = tuple(str(ROOT / "models" / name) for name in ("storybook", "storybook-student"))
_COLOURS: Final = {"lockstep-api": "#2a78d6", "lockstep-worker": "#eb6834", "lockstep-maintain": "#1baf7a"}
_INK, _QUIET, _GRID = "#0b0b0b", "#52514e", "#e1e0d9"
_REQUEST: Final = "POST /v1/generations"


def main() -> None:
    """Run it, and draw what comes."""
    with collecting() as collector:
        job_id = asyncio.run(_generate(collector))
        trace = _of_job(collector, job_id)
    draw(trace, IMAGE)
    for depth, span in in_order(trace):
        print(f"{_milliseconds(span):>10}  {'  ' * depth}{span.name} ({span.service})")


async def _generate(collector: Collector) -> str:
    """Have a system generate with a warm model, and end it, so that all is told; the job's id."""
    async with receiving() as receiver:
        return await asyncio.to_thread(_generate_and_end, collector, receiver)


def _generate_and_end(collector: Collector, receiver: Receiver) -> str:
    with (
        stack_folder() as folder,
        running(folder / "data", *_MODELS, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as stack,
        Lockstep(base_url=stack.url, api_key=stack.new_key("Acme")) as client,
    ):
        client.webhook_endpoints.create(url=receiver.url(), event_types=["generation.succeeded"])
        for number, prompt in enumerate(("a blue dog", "a green bird on the beach", "a red cat in the snow")):
            job = client.generations.create(prompt=prompt, model="storybook-student")
            client.jobs.wait(job.id)
            until(partial(_has, receiver, number + 1))
        return job.id


def _has(receiver: Receiver, number: int) -> bool:
    return len(receiver.requests) >= number


def _of_job(collector: Collector, job_id: str) -> Trace:
    attempts = [span for span in collector.spans if span.attributes.get("lockstep.job_id") == job_id]
    return collector.of(attempts[0].trace_id)


def in_order(trace: Trace) -> list[tuple[int, Span]]:
    """Every span with its depth, parents first."""
    found: list[tuple[int, Span]] = []

    def visit(span: Span, depth: int) -> None:
        found.append((depth, span))
        for child in trace.under(span):
            visit(child, depth + 1)

    for root in trace.roots:
        visit(root, 0)
    return found


def _milliseconds(span: Span) -> str:
    return f"{(span.ended_at - span.began_at) / 1e6:.1f} ms"


def draw(trace: Trace, path: Path) -> None:
    """Draw a trace: a line for each span, from the top, with the time from left to right."""
    spans = in_order(trace)
    start = min(span.began_at for _, span in spans)
    whole = (max(span.ended_at for _, span in spans) - start) / 1e6
    with mpl.rc_context({"font.size": 10, "text.color": _INK, "axes.edgecolor": _GRID}):
        figure, axes = plt.subplots(figsize=(11, 0.36 * len(spans) + 1.3))
        for line, (_, span) in enumerate(spans):
            began, took = (span.began_at - start) / 1e6, (span.ended_at - span.began_at) / 1e6
            axes.barh(line, max(took, whole / 500), left=began, height=0.62, color=_COLOURS[span.service], linewidth=0)
            axes.text(
                max(began + took, began + whole / 500) + whole / 150,
                line,
                _milliseconds(span),
                va="center",
                color=_QUIET,
                fontsize=9,
            )
        axes.set_yticks(range(len(spans)), ["    " * depth + span.name for depth, span in spans], ha="left")
        axes.tick_params(axis="y", length=0, pad=190, labelcolor=_INK)
        axes.tick_params(axis="x", colors=_QUIET)
        axes.invert_yaxis()
        axes.set_xlim(0, whole * 1.1)
        axes.set_xlabel("milliseconds since the request came in", color=_QUIET)
        axes.grid(axis="x", color=_GRID)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        names = {"lockstep-api": "API", "lockstep-worker": "worker", "lockstep-maintain": "maintainer"}
        shown = [Patch(color=_COLOURS[service], label=name) for service, name in names.items()]
        axes.legend(handles=shown, loc="upper right", frameon=False)
        figure.savefig(path, dpi=120, bbox_inches="tight", facecolor="#fcfcfb")
        plt.close(figure)


if __name__ == "__main__":
    main()
