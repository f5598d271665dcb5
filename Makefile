# `make` lists the targets. Nothing has to be installed before but Python and make.

PYTHON ?= python3
RUN := .venv/bin/python -m
# Settings for the job of a target, for example: make track ARGS="cluster.workers=2"
ARGS ?=

SAMPLE_ARCHIVE := runs/sample-archive
SAMPLE_RUN := runs/sample
SAMPLE_VIDEO := cyclist.mp4
SAMPLE_STUDENT := runs/sample-distill
SAMPLE_SHARDS := runs/sample-shards
GPU_KIT := runs/gpu-kit

# Data to develop with: sequences/train, sequences/val, images/annotations.json and detectors of
# others in weights/. Tests read where it is from the environment; in keys of jobs it is quoted
# for YAML. Keys in ARGS come later and win.
DATA ?= $(VSDMOT_DATA)
export VSDMOT_DATA := $(DATA)
VAL_KEYS := data="$$VSDMOT_DATA/sequences/val" detectors="[\
\"yolox@$$VSDMOT_DATA/weights/yolox_nano_416.onnx\",\
\"retail@$$VSDMOT_DATA/weights/person-detection-retail-0013.xml\"]"
STILLS := $$VSDMOT_DATA/images/annotations.json
BENCH_KEYS := detector="$$VSDMOT_DATA/weights/yolox_nano_416.onnx" \
  still="$$VSDMOT_DATA/sequences/val/TUD-Stadtmitte/video.mp4"

# Recipes read these from their environment ("$$INPUT"), where a space or a quote in a name is
# safe; pasted into the command line by make it would not be.
export INPUT OUTPUT VIDEO SHARDS

.DEFAULT_GOAL := help
.PHONY: help setup plan doctor track test test-slow test-faults lint docs page-picture format pack distill train kit kit-back measure eval eval-smoke compact export bench bench-gpu render lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'settings of a job: ARGS="key=value …"; which there are: .venv/bin/vsdmot NAME --help'

setup: .venv/.stamp ## .venv with the exact versions of requirements.lock (PYTHON=… chooses one)

# The stamp is made last, so an install that was cut short is taken up again.
.venv/.stamp: requirements.lock pyproject.toml
	@test -x .venv/bin/python || { \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	  { "$(PYTHON)" -m venv .venv || { rm -rf .venv; false; }; }; } || { \
	  echo "setup: needs Python 3.11 or newer with its venv module, and $(PYTHON) is" \
	  "$$("$(PYTHON)" --version 2>/dev/null || echo missing)." >&2; \
	  echo "Name another: make setup PYTHON=/path/to/python3.12" >&2; \
	  echo "(on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "setup: .venv is of an older Python than 3.11; remove it and run make again" >&2; exit 1; }
	@test -x .venv/bin/uv || $(RUN) pip install --quiet --disable-pip-version-check uv
	.venv/bin/uv pip install --python .venv/bin/python --compile-bytecode -r requirements.lock
	.venv/bin/uv pip install --python .venv/bin/python --no-deps -e .
	@touch $@

plan: .venv/.stamp ## what make track would do, take and cost: INPUT=/my/videos, OUTPUT= if there is one
	@test -n "$$INPUT" || { echo "plan: give it: make plan INPUT=/my/videos" >&2; exit 1; }
	@$(RUN) jobs.plan input="$$INPUT" output="$$OUTPUT" $(ARGS)

doctor: .venv/.stamp ## whether this machine is fit for it; INPUT= and OUTPUT= are looked at too
	@$(RUN) jobs.doctor input="$$INPUT" output="$$OUTPUT" $(ARGS)

# With INPUT and OUTPUT, the real use: jobs.track's exit code reaches make, which reports it
# ("Error 3": done, some inputs are dead letters) and itself always exits with 2. A script that
# has to tell the codes apart calls .venv/bin/vsdmot track itself.
# Without, the sample; one of its files is broken on purpose, so there 3 is the good end.
track: .venv/.stamp ## track an archive: INPUT=/my/videos OUTPUT=/my/out; without both, a sample
ifneq ($(INPUT)$(OUTPUT),)
	@test -n "$$INPUT" && test -n "$$OUTPUT" || { \
	  echo "track: give both: make track INPUT=/my/videos OUTPUT=/my/out" >&2; exit 1; }
	@$(RUN) jobs.track input="$$INPUT" output="$$OUTPUT" $(ARGS)
else
	@$(RUN) jobs.sample output=$(SAMPLE_ARCHIVE)
	@$(RUN) jobs.track input=$(SAMPLE_ARCHIVE) output=$(SAMPLE_RUN) $(ARGS) || test $$? -eq 3
	@echo "drawing the tracks of $(SAMPLE_VIDEO):"
	@$(RUN) jobs.render output=$(SAMPLE_RUN) video=$(SAMPLE_VIDEO)
	@echo "tables in $(SAMPLE_RUN); the .mp4 above shows them on the video, the .png on one page"
	@echo "to look at in a browser: file://$(CURDIR)/$(SAMPLE_RUN)/report/index.html"
endif

test: .venv/.stamp ## the everyday tests; with DATA=folder, a detector of others on real pictures too
	$(RUN) pytest -n 2 --dist loadfile $(ARGS)

test-slow: .venv/.stamp ## the tests that take longer
	$(RUN) pytest -m slow $(ARGS)

test-faults: .venv/.stamp ## break the tracking job on purpose; prints what was lost
	$(RUN) pytest tests/faults -m "slow or not slow" $(ARGS)

lint: .venv/.stamp ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

docs: .venv/.stamp ## the site of the documentation, in runs/docs/index.html
	$(RUN) sphinx -W -E --keep-going -q -c docs/site docs runs/docs

# The page of the sample's best video, from headless Chromium, after `make track`.
page-picture: .venv/.stamp ## docs/page.png from the sample's page
	$(RUN) tests.page_picture $(SAMPLE_RUN) docs/page.png

format: .venv/.stamp ## let ruff put the code in order
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

pack: .venv/.stamp ## labelled video and stills to training shards: DATA=folder
	@$(RUN) jobs.pack $(if $(DATA),sequences="[\"$$VSDMOT_DATA/sequences/train\"]" \
	  stills="[\"$(STILLS)\"]") $(ARGS)

distill: .venv/.stamp ## a student from unlabelled videos: INPUT= OUTPUT=; without both, the sample
ifneq ($(INPUT)$(OUTPUT),)
	@test -n "$$INPUT" && test -n "$$OUTPUT" || { \
	  echo "distill: give both: make distill INPUT=/my/videos OUTPUT=/my/student" >&2; exit 1; }
	@$(RUN) jobs.distill input="$$INPUT" output="$$OUTPUT" $(ARGS)
else
	@$(RUN) jobs.sample output=$(SAMPLE_ARCHIVE)
	@$(RUN) jobs.distill input=$(SAMPLE_ARCHIVE) output=$(SAMPLE_STUDENT) \
	  start=weights/vsdmot-nano.safetensors frames.height=128 frames.width=192 \
	  training.steps=10 training.batch=4 $(ARGS)
endif

# Without SHARDS: drawn people and ten steps, from what `make distill` left if it ran. It shows the
# road from end to end; the student that comes out knows less than the one that went in.
train: .venv/.stamp ## a student from labelled shards: SHARDS= OUTPUT=; without both, drawn people
ifneq ($(SHARDS)$(OUTPUT),)
	@test -n "$$SHARDS" && test -n "$$OUTPUT" || { \
	  echo "train: give both: make train SHARDS=/my/shards OUTPUT=/my/student" >&2; exit 1; }
	@$(RUN) jobs.train shards="$$SHARDS" output="$$OUTPUT" $(ARGS)
else
	@$(RUN) jobs.pack sequences=[] stills=[] drawn=2 output=$(SAMPLE_SHARDS)
	@$(RUN) jobs.train shards=$(SAMPLE_SHARDS) output=runs/sample-train \
	  start=$(or $(wildcard $(SAMPLE_STUDENT)/*nano.safetensors),weights/vsdmot-nano.safetensors) \
	  clips.height=128 clips.width=192 training.steps=10 training.batch=2 $(ARGS)
endif

kit: .venv/.stamp ## a folder that a bare GPU machine trains from: SHARDS=
	@test -n "$$SHARDS" || { echo "kit: give shards: make kit SHARDS=/my/shards" >&2; exit 1; }
	@$(RUN) jobs.kit shards="$$SHARDS" $(ARGS)

kit-back: .venv/.stamp ## join what came back of it: INPUT=folder OUTPUT=file.safetensors
	@test -n "$$INPUT" && test -n "$$OUTPUT" || { \
	  echo "kit-back: give both: make kit-back INPUT=folder OUTPUT=file.safetensors" >&2; exit 1; }
	@$(RUN) jobs.kit_back input="$$INPUT" output="$$OUTPUT" $(ARGS)

measure: .venv/.stamp ## what the student knows: DATA=folder ARGS=what=detection, degraded, semantics, quality, still or cuts
	@$(RUN) jobs.measure $(if $(DATA),$(VAL_KEYS) stills="$(STILLS)") $(ARGS)

# Every cell is computed once: what is there stays, what is missing is computed.
eval: .venv/.stamp ## the benchmark: DATA=folder; without, on drawn sequences
	@$(RUN) jobs.eval $(if $(DATA),--config configs/eval_data.yaml $(VAL_KEYS)) $(ARGS)

eval-smoke: .venv/.stamp ## the benchmark in small, on drawn sequences
	@$(RUN) jobs.eval frames=8 output=runs/eval-smoke degradations=[noise] severities=[5] \
	  "trackers=[student,student:gate_off,bytetrack]" cluster.workers=0 $(ARGS)

compact: .venv/.stamp ## merge the tables of tracked videos into large files: OUTPUT=/my/out
	@test -n "$$OUTPUT" || { echo "compact: give it: make compact OUTPUT=/my/out" >&2; exit 1; }
	@$(RUN) jobs.compact output="$$OUTPUT" $(ARGS)

# With ARGS=format=onnx, openvino or torch, INPUT is weights, and the tracker itself is written.
export: .venv/.stamp ## a run of make track or eval as MOTChallenge files: INPUT=run OUTPUT=folder
	@test -n "$$INPUT" && test -n "$$OUTPUT" || { \
	  echo "export: give both: make export INPUT=/my/tracks OUTPUT=/my/files" >&2; exit 1; }
	@$(RUN) jobs.export input="$$INPUT" output="$$OUTPUT" $(ARGS)

bench: .venv/.stamp ## how fast, and against what: VIDEO=/my/video.mp4; DATA=folder adds YOLOX
ifneq ($(VIDEO),)
	@$(RUN) jobs.bench video="$$VIDEO" $(if $(DATA),$(BENCH_KEYS)) $(ARGS)
else ifneq ($(DATA),)
	@$(RUN) jobs.bench video="$$VSDMOT_DATA/sequences/val/TUD-Stadtmitte/video.mp4" \
	  $(BENCH_KEYS) $(ARGS)
else
	@$(RUN) jobs.sample output=$(SAMPLE_ARCHIVE)
	@$(RUN) jobs.bench video=$(SAMPLE_ARCHIVE)/$(SAMPLE_VIDEO) $(ARGS)
endif

# The kit is all that a GPU machine needs; where there is a GPU here, it is run at once.
bench-gpu: .venv/.stamp ## speed on a GPU, as a kit that a bare machine runs: VIDEO=/my/video.mp4
ifeq ($(VIDEO),)
	@$(RUN) jobs.sample output=$(SAMPLE_ARCHIVE)
	@$(RUN) jobs.gpu_kit video=$(SAMPLE_ARCHIVE)/$(SAMPLE_VIDEO) output=$(GPU_KIT) $(ARGS)
else
	@$(RUN) jobs.gpu_kit video="$$VIDEO" output=$(GPU_KIT) $(ARGS)
endif
	@if .venv/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
	  .venv/bin/python $(GPU_KIT)/part-0/run.py; \
	else echo "there is no GPU here, so nothing was measured"; fi

render: .venv/.stamp ## draw a tracked video: OUTPUT=/my/out VIDEO=name
	@test -n "$$OUTPUT" && test -n "$$VIDEO" || { \
	  echo "render: give both: make render OUTPUT=/my/out VIDEO=name" >&2; exit 1; }
	@$(RUN) jobs.render output="$$OUTPUT" video="$$VIDEO" $(ARGS)

# For the oldest Python that is supported; no registry's address gets into the file.
lock: .venv/.stamp ## requirements.lock anew from pyproject.toml
	.venv/bin/uv pip compile -q pyproject.toml --all-extras --no-header --no-annotate \
	  --no-emit-index-url --python-version 3.11 -o requirements.lock
