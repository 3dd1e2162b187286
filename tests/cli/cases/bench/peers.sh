# What is installed is measured beside, what is not is named with its package.
qallow bench --tier smoke --runs 1 --peers all --json --filter peer/redis-write \
    --filter peer/git-back --filter peer/lmdb-batched --filter peer/sqlite-batched >report 2>notes
/usr/bin/python3 - <<'PY'
import json
cases = {case['name'].split('/')[1].split('-')[0]: case
         for case in json.load(open('report'))['cases']}
left_out = {line.split()[2] for line in open('notes') if ' is left out: ' in line}
for peer in 'redis', 'git', 'lmdb', 'sqlite':
    assert (peer in cases) != (peer in left_out), peer
    assert peer in left_out or cases[peer]['reference']['median'] > 0, cases[peer]
PY
ls -A "$TMPDIR" | grep qallow-bench || true
mkdir empty
qallow=$(command -v qallow)
PATH=$PWD/empty status "$qallow" bench --tier smoke --peers git,redis --filter peer
# So is a GPU, whatever is missing to use it.
CUDA_VISIBLE_DEVICES='' status "$qallow" bench --tier smoke --peers gpu --filter gpu 2>&1 |
    sed 's/\(gpu is left out: no GPU can be used\): .*/\1/'
