#!/usr/bin/env bash
# Makes vllm-cpu run in the given virtual environment: tools/vllm_cpu.sh VENV
# The package registry offers CUDA builds of its companions. What does not load here is put aside, and only that:
# where an index offers CPU builds, nothing is changed. A second call does nothing.
set -euo pipefail

python=${1:?which virtual environment? tools/vllm_cpu.sh VENV}/bin/python
loads() { "$python" -c "import $1" >/dev/null 2>&1; }
present() { "$python" -c "import sys; from importlib.util import find_spec; sys.exit(find_spec('$1') is None)"; }
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Packages that come or go change the folder's own time.
done=${1}/patched-for-vllm-cpu
[ "$done" -nt "$site" ] && cmp -s "$0" "$done" && exit 0

loads torch || { "$python" -c "import torch"; exit 1; }

# Decodes sound for vLLM's own server; vLLM falls back to other decoders without it.
if present torchcodec && ! loads torchcodec; then
  "$python" -m pip uninstall --quiet --disable-pip-version-check --yes torchcodec
fi

# Its Python part is all that is used, and that works without the compiled part.
if present torchaudio && ! loads torchaudio; then
  rm -f "$site"/torchaudio/lib/*.so
fi

# torchvision's Python part registers shapes for two operators and stops when they do not exist. They are declared
# just before torchvision is imported, in every process of this environment. Nothing calls them.
if present torchvision && ! loads torchvision; then
  cat >"$site/torchvision_declared_ops.py" <<'PY'
"""Declares torchvision's operators before torchvision is imported, where its compiled part does not load."""

import sys
from importlib.abc import MetaPathFinder

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class DeclareFirst(MetaPathFinder):
    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and DeclareFirst.library is None:
            import torch

            DeclareFirst.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in OPERATORS:
                if not hasattr(torch.ops.torchvision, operator):
                    DeclareFirst.library.define(operator + SIGNATURE)
        return None


sys.meta_path.insert(0, DeclareFirst())
PY
  echo "import torchvision_declared_ops" >"$site/torchvision_declared_ops.pth"
fi

# The command `vllm` and vLLM-Omni ask for a distribution named vllm.
if present vllm && ! "$python" -c "from importlib.metadata import version; version('vllm')" 2>/dev/null; then
  release=$("$python" -c "from importlib.metadata import version; print(version('vllm-cpu').split('+')[0])")
  stub="$site/vllm-$release+cpu.dist-info"
  mkdir -p "$stub"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$release" >"$stub/METADATA"
fi

for module in torchaudio torchvision transformers vllm; do
  if present "$module"; then
    "$python" -c "import $module" || { echo "$module does not load in $1" >&2; exit 1; }
  fi
done

cp "$0" "$done"
