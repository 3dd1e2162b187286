#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Shows Qallow on the weights of a model: a tiny deterministic trainer (tests/tensors/train.c) makes
# 20 checkpoints of a small model of characters, each becomes an epoch of one chain, one is restored
# and verified, and a chain with one wrong byte is refused. It fails if any of this is not so.
#
#     scripts/demo-tensors.sh
#
# QALLOW=PATH and TRAIN=PATH take programs that are there; else they are built into build/.
# QALLOW_KEEP=1 keeps the files.
set -euo pipefail
# shellcheck source=scripts/recorder.sh
. "$(dirname "$0")/recorder.sh"
# shellcheck source=scripts/demonstration.sh
. "$(dirname "$0")/demonstration.sh"

if [ -z "${QALLOW:-}" ] || [ -z "${TRAIN:-}" ]; then
    build interface/qallow tests/tensors/train
    TRAIN=$top/build/tests/tensors/train
fi
find_qallow
train=$(realpath "$TRAIN")
make_work demo-tensors
PATH=$(dirname "$qallow"):$PATH
cd "$work"

say 'Fine-tune a small model: 20 checkpoints of its weights in bf16, 10 steps between them.'
mkdir run
cat "$top"/docs/*.md >text
"$train" run 20 10 bf16 1e-6 <text | tail -n 1
rm run/step-000.safetensors
run 'ls -s --block-size=K run | tail -n 3'

say 'Each checkpoint is an epoch; it holds only the elements that changed.'
for file in run/step-*.safetensors; do
    qallow checkpoint save chain.tlog "$file" --quiet >/dev/null
done
run 'qallow replay chain.tlog --list --quiet | tail -n 4'
copies=$(cat run/*.safetensors | wc -c)
chain=$(stat -c %s chain.tlog)
say "20 full copies take $((copies / 1024)) KiB, the chain $((chain / 1024)) KiB:" \
    "$((100 * chain / copies)) %."
[ "$chain" -lt $((copies / 4)) ] || fail 'the chain takes more than a quarter of the copies'

say 'Any of them comes back, byte for byte.'
run 'qallow replay chain.tlog --epoch 7 --output seven.safetensors'
run 'cmp seven.safetensors run/step-007.safetensors && echo "byte for byte the same"'
run 'qallow replay chain.tlog --verify'
run 'qallow replay chain.tlog --epoch 20 --list --json >/dev/null'

say 'One wrong byte, and the chain is refused; the file that was there stays as it is.'
cp chain.tlog broken.tlog
# in the first epoch's content, on which all others are based
printf '\x5a' | dd of=broken.tlog bs=1 seek=100000 conv=notrunc status=none
status=0
run 'qallow replay broken.tlog --epoch 20 --output seven.safetensors --force' || status=$?
[ "$status" = 65 ] || fail "the broken chain ended with $status, not 65"
run 'cmp seven.safetensors run/step-007.safetensors && echo "as it was"'

echo '5 passed, 0 failed' # for .ci/run: saved, small, restored, verified, refused
