"""The figures of a speed kit as text."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(figures: Mapping[str, Any]) -> str:
    """The figures of `gpu_speed.measure`, as tables of plain text."""
    machine, settings = figures["machine"], figures["settings"]
    height, width = settings["canvas"]
    lines = [
        f"{machine['device']}, torch {machine['torch']}, {machine['cores']} cores; canvas "
        f"{height}x{width}, windows of {settings['window']} frames",
        "",
        *_aligned(
            [("precision", "videos", "frames/s", "encode ms", "step ms", "GPU MiB", "")]
            + [_rate(rate) for rate in figures["rates"]]
        ),
        "frames/s: encode and step of full batches, copies to the GPU included",
    ]
    for found in figures["streams"] or []:
        busy = found["gpu_busy"]
        lines.append(
            f"{found['streams']} threads with a video each: {found['frames_per_second']:.0f} "
            "frames/s, GPU busy "
            + ("not measured" if busy is None else f"{busy:.0%} (kernels and copies, profiler)")
        )
    lines += [*_roofline(figures["roofline"]), *_agreement(figures["agreement"])]
    decode = figures["decode"]
    if decode:
        one, all_cores = (
            "not possible" if decode[name] is None else f"{decode[name]:.0f} frames/s"
            for name in ("one_core", "all_cores")
        )
        lines.append(
            f"decode and scale apart, {decode['decoder']}: {one} on one core, {all_cores} on "
            f"{decode['cores']}"
        )
    lines += [f"not measured: {reason}" for reason in figures["not_measured"]]
    return "\n".join(lines)


def _rate(rate: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        rate["precision"],
        str(rate["rows"]),
        f"{rate['frames_per_second']:.1f}",
        f"{rate['encode_ms']:.2f}",
        f"{rate['step_ms']:.2f}",
        "" if rate["memory_mib"] is None else f"{rate['memory_mib']:.0f}",
        "; ".join(rate["problems"]),
    )


def _roofline(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    flops = ", ".join(f"{rate / 1e12:.3g} TFLOP/s {name}" for name, rate in
                      found["peak_flops"].items())  # fmt: skip
    lines = [f"peaks measured here: {flops}; {found['peak_bytes'] / 1e9:.4g} GB/s copied"]
    for name in ("encode", "step"):
        part = found[name]
        lines.append(
            f"roofline of {name}, {part['precision']}: {part['gflops_a_frame']:.3g} GFLOPs and "
            f"{part['mbytes_a_frame']:.4g} MB a frame allow {part['least_ms']:.3g} ms for "
            f"{part['frames']} frames, {part['taken_ms']:.3g} ms were taken: {part['share']:.0%}"
        )
    return lines


def _agreement(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    titles = {
        "to_plain_fp32": "to plain PyTorch in fp32",
        "beside_others_to_alone": "in a batch with other videos, to alone",
    }
    return [
        f"{precision} {title}: the same ids on {pair['same_ids']:.0%} of {found['frames']} "
        f"frames, {pair['boxes']} boxes within {pair['boxes_px']:.2g} px"
        for precision, pairs in found.items()
        if precision != "frames"
        for key, title in titles.items()
        for pair in (pairs[key],)
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i in (0, len(row) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
