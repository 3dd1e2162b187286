#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures `qallow accelerator` beside what one would use otherwise, in one run and in turns.

scripts/bench-accelerator.sh builds what this needs, makes the work directories and calls it; what
is measured and how is said in docs/performance/accelerator.md. Each figure is the median of the
runs, with the least and the greatest; each row of the table has its reference beside it, taken in
the same run. The time-critical parts are the C programs bench_*.c beside this file.
"""
import argparse
import datetime
import glob
import json
import os
import pathlib
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time


def fail(text):
    sys.exit(f'bench-accelerator.sh: {text}')


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            fail(f'{what} has not come about in {seconds} s')
        time.sleep(0.001)


class Bench:
    """Where everything is, what runs, and the rows of the table so far."""

    def __init__(self, options):
        self.options = options
        self.work = pathlib.Path(options.work)
        self.cache = pathlib.Path(options.cache)
        self.programs = pathlib.Path(options.build) / 'tests/accelerator'
        self.qallow = str(pathlib.Path(options.build) / 'interface/qallow')
        self.rows = []
        self.processes = []  # what must not survive us
        self.environment = {**os.environ, 'QALLOW_CACHE_DIR': str(self.cache)}

    def size(self, full):
        return max(1000, full // 100) if self.options.quick else full

    def runs(self):
        return range(self.options.runs)

    # --- rows ---

    def row(self, what, unit, ours, name='', reference=None, ratio=None, limit=None):
        """One row: `ours` and `reference` are lists of figures. With `ratio`, our median must be at
        most that many times the reference's; with `limit`, at most that."""
        median = statistics.median(ours)
        row = {'what': what, 'unit': unit, 'median': median, 'min': min(ours), 'max': max(ours),
               'runs': len(ours)}
        reached = None
        if reference:
            middle = statistics.median(reference)
            row |= {'reference': name, 'reference_median': middle,
                    'reference_min': min(reference), 'reference_max': max(reference),
                    'ratio': median / middle if middle else None}
        if ratio is not None:
            row['ratio_limit'] = ratio
            reached = median <= ratio * row['reference_median']
        if limit is not None:
            row['limit'] = limit
            reached = (reached is None or reached) and median <= limit
        row['reached'] = reached
        self.rows.append(row)
        if not self.options.json:
            print(as_line(row), flush=True)

    # --- programs ---

    def program(self, name, *arguments):
        """The JSON that one of the C programs prints."""
        command = [str(self.programs / name), *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            fail(f'{" ".join(command)} ended with {done.returncode}')
        return json.loads(done.stdout)

    def tree(self, name, files, *more):
        """A directory and a file with the names of the files in it."""
        top, names = self.work / name, self.work / f'{name}.names'
        with open(names, 'w') as out:
            subprocess.run([self.programs / 'bench_tree', 'make', top, str(files), *more],
                           stdout=out, check=True)
        subprocess.run(['sync', '-f', self.work], check=True)
        return top, names

    def remove(self, tree):
        shutil.rmtree(tree)
        self.forget()

    def forget(self):
        """Removes all caches, so that the next keeper begins with nothing."""
        for file in self.cache.iterdir():
            file.unlink()

    def seconds(self, *command, shell=None):
        """How long a command takes; its output is thrown away."""
        command = ['bash', '-c', shell] if shell else list(map(str, command))
        began = time.perf_counter()
        done = subprocess.run(command, env=self.environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
        took = time.perf_counter() - began
        if done.returncode:
            fail(f'{command} ended with {done.returncode}: {done.stderr.decode()}')
        return took

    def once(self, tree):
        return self.seconds(self.qallow, 'accelerator', '--watch', tree, '--no-log', '--once')

    def start(self, tree, *more):
        """A keeper that is ready; its attribute `took` is how long that took. Nobody reads what it
        prints later, so that nobody is woken by it."""
        began = time.perf_counter()
        with open(self.work / 'keeper.err', 'w') as errors:
            keeper = subprocess.Popen(
                [self.qallow, 'accelerator', '--watch', str(tree), '--no-log', *more],
                env=self.environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        self.processes.append(keeper.pid)
        line = 'no line'
        while line and not line.startswith('ready'):
            line = keeper.stdout.readline()
        keeper.took = time.perf_counter() - began
        if not line:
            fail('the accelerator ended before it was ready: ' +
                 (self.work / 'keeper.err').read_text())
        return keeper

    def stop(self, keeper):
        keeper.terminate()
        if keeper.wait():
            fail(f'the accelerator ended with {keeper.returncode}: ' +
                 (self.work / 'keeper.err').read_text())
        self.processes.remove(keeper.pid)

    def freeze(self, pid):
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: all(state(task) == 'T' for task in glob.glob(f'/proc/{pid}/task/*')),
                 'that all threads have stopped')

    def end(self):
        for pid in self.processes:
            for number in signal.SIGCONT, signal.SIGKILL:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass


class Watchman:
    """A server of our own, which nobody else uses."""

    def __init__(self, bench):
        self.bench = bench
        folder = bench.work / 'watchman'
        folder.mkdir()
        self.options = [f'--{option}={folder}/{file}' for option, file in (
            ('statefile', 'state'), ('logfile', 'log'), ('pidfile', 'pid'), ('sockname', 'sock'))]
        self.socket = self.ask('get-sockname')['sockname']
        self.pid = self.ask('get-pid')['pid']
        bench.processes.append(self.pid)

    def ask(self, *request):
        done = subprocess.run(['watchman', *self.options, '-j'], input=json.dumps(request),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        answer = json.loads(done.stdout) if done.stdout else {'error': done.stderr}
        if 'error' in answer:
            fail(f'watchman: {answer["error"]}')
        return answer

    def end(self):
        self.ask('shutdown-server')
        wait_for(lambda: not os.path.exists(f'/proc/{self.pid}'), 'the end of watchman')
        self.bench.processes.remove(self.pid)


def state(task):
    """The letter of a thread's state in /proc."""
    return pathlib.Path(task, 'stat').read_text().rsplit(')', 1)[1].split()[0]


def field(path, name):
    """A number in a file of lines like "name: 12 kB"."""
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(name + ':'):
            return int(line.split()[1])
    fail(f'{path} has no {name}')


# --- what is measured ---

def measure_lookups(bench):
    sizes = [(10000, 5, None), (250000, None, None)]
    if bench.options.large:
        sizes.append((2000000, None, 450))
    for full, ratio, limit in sizes:
        files = bench.size(full)
        title = f'{files:,}'
        tree, names = bench.tree('lookup', files, 'empty')
        keeper = bench.start(tree)
        found = bench.program('bench_lookup', 'get', tree, names, bench.options.runs)
        bench.row(f'look-up, {title} files', 'ns', found['cache_ns'], 'bare table',
                  found['bare_ns'], ratio, limit)
        bench.row(f'of which fetching and hashing the name, {title} names', 'ns', found['name_ns'])
        if full == 250000:
            for count in 1, 100, 1000:
                found = bench.program('bench_lookup', 'since', tree, names, count,
                                      bench.options.runs)
                bench.row(f'"changed since", {count} of {title} files', 'us', found['since_us'],
                          limit=1000)
        if full == 2000000:
            measure_memory(bench, keeper, names, title)
        bench.stop(keeper)
        bench.remove(tree)


def percentiles(results, which):
    return [result['percentiles_us'][which - 1] for result in results]


def measure_latency(bench, tree, watchman):
    samples, slow = (200, 20) if bench.options.quick else (2000, 200)
    found = {}

    def measure(name, how, count, gap, *more):
        found.setdefault(name, []).append(
            bench.program('bench_latency', how, tree, count, gap, *more))

    watchman.ask('watch', str(tree))
    watchman.ask('query', str(tree), {'fields': ['name']})
    watchman.ask('watch-del', str(tree))
    for _ in bench.runs():
        for how in 'raw-blocked', 'raw-spinning':
            measure(how, how, samples, 200)
        keeper = bench.start(tree, '--settle', '0ms')
        for how in 'cache-waiting', 'cache-spinning':
            measure(how, how, samples, 200)
        measure('settle 0', 'cache-alone', slow, 30000)
        bench.stop(keeper)
        keeper = bench.start(tree, '--settle', '20ms')
        measure('settle 20', 'cache-alone', slow, 30000)
        bench.stop(keeper)
        measure('inotifywait', 'inotifywait', slow, 30000)
        watchman.ask('watch', str(tree))
        measure('watchman', 'watchman-subscribed', slow, 30000, watchman.socket)
        measure('watchman asked', 'watchman-asked', slow, 30000, watchman.socket)
        watchman.ask('watch-del', str(tree))

    for how, ratio in ('waiting', 2.5), ('spinning', 1.5):
        for which, limit in (50, ratio), (99, 4):
            bench.row(f'close to hash, reader {how}, p{which}', 'us',
                      percentiles(found[f'cache-{how}'], which), f'inotify blocked, p{which}',
                      percentiles(found['raw-blocked'], which), limit)
    for which in 50, 99:
        bench.row(f'close to hash, reader spinning, p{which}', 'us',
                  percentiles(found['cache-spinning'], which), f'inotify spinning, p{which}',
                  percentiles(found['raw-spinning'], which))
    for which in 50, 99:
        bench.row(f'close to hash, settle 20 ms, p{which}', 'us',
                  percentiles(found['settle 20'], which), f'watchman subscription, p{which}',
                  percentiles(found['watchman'], which), 1)
    worst = [max(statistics.median(percentiles(found['settle 20'], p)) /
                 statistics.median(percentiles(found['watchman'], p)) for p in range(1, 100))]
    bench.row('the same, the worst ratio of all percentiles', '', worst, limit=1)
    for which in 50, 99:
        bench.row(f'close to hash, settle 0, p{which}', 'us', percentiles(found['settle 0'], which),
                  f'watchman subscription, p{which}', percentiles(found['watchman'], which), 0.1)
    for which in 50, 99:
        bench.row(f'close to hash, settle 0, p{which}', 'us', percentiles(found['settle 0'], which),
                  f'inotifywait, its line, p{which}', percentiles(found['inotifywait'], which))
    for which in 50, 99:
        bench.row(f'close to hash, settle 0, p{which}', 'us', percentiles(found['settle 0'], which),
                  f'watchman query with SHA-1, p{which}',
                  percentiles(found['watchman asked'], which))


def measure_burst(bench, tree, names, watchman):
    generation = 0
    ours, floor, theirs, printed, epochs = [], [], [], [], []
    query = {'expression': ['type', 'f'], 'fields': ['name', 'content.sha1hex']}
    for _ in bench.runs():
        generation += 4
        floor.append(bench.program('bench_burst', 'floor', tree, names, generation)['ms'])
        keeper = bench.start(tree, '--settle', '0ms')
        bench.freeze(keeper.pid)
        found = bench.program('bench_burst', 'cache', tree, names, generation + 1, keeper.pid)
        ours.append(found['ms'])
        epochs.append(found['epochs'])
        bench.stop(keeper)
        printed.append(bench.program('bench_burst', 'inotifywait', tree, names,
                                     generation + 3)['ms'])
        watchman.ask('watch', str(tree))
        clock = watchman.ask('query', str(tree), query)['clock']
        bench.freeze(watchman.pid)
        found = bench.program('bench_burst', 'watchman', tree, names, generation + 2, watchman.pid,
                              watchman.socket, clock)
        theirs.append(found['ms'])
        watchman.ask('watch-del', str(tree))
    files = f'{bench.size(10000):,}'
    bench.row(f'{files} changed files, until all hashes are there', 'ms', ours,
              'read + XXH3, 2 threads', floor, 2)
    bench.row('the same', 'ms', ours, 'watchman, with SHA-1', theirs)
    bench.row('the same', 'ms', ours, 'inotifywait, its lines, no hashes', printed)
    bench.row('the same, epochs that the reader saw on the way', '', epochs)


def bytes_read(bench, *command):
    """All that a process has read by read(2) and the like, its own binary and the ignore files
    included."""
    process = subprocess.Popen(list(map(str, command)), env=bench.environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    count = field(f'/proc/{process.pid}/io', 'rchar')
    if process.wait():
        fail(f'{command} ended with {process.returncode}')
    return count


def measure_scan(bench, tree, names):
    files = f'{bench.size(100000):,}'
    times = {}

    def add(name, seconds):
        times.setdefault(name, []).append(seconds * 1e3)

    listed = f"find '{tree}' -type f -print0"
    for _ in bench.runs():
        for length in 2, 3:
            add(f'xxhsum -H{length}', bench.seconds(
                shell=f'{listed} | xargs -0 -n 2500 -P 2 xxhsum -H{length} -q'))
        add('read', bench.program('bench_burst', 'read', tree, names, 0)['ms'] / 1e3)
        bench.forget()
        add('scan', bench.once(tree))
        bench.forget()
        keeper = bench.start(tree)
        add('scan to ready', keeper.took)
        bench.stop(keeper)
        add('stat', bench.seconds(bench.programs / 'bench_tree', 'stat', tree))
        add('find', bench.seconds('find', tree, '-type', 'f', '-printf', '%s %T@ %p\\n'))
        add('warm', bench.once(tree))
        keeper = bench.start(tree)
        add('warm to ready', keeper.took)
        bench.stop(keeper)
    for what, text in (('scan', f'first scan of {files} files, --once'),
                       ('scan to ready', 'the same, watching')):
        bench.row(text, 'ms', times[what], 'find, xargs -P2 xxhsum -H3',
                  times['xxhsum -H3'], 0.7)
    bench.row(f'first scan of {files} files, --once', 'ms', times['scan'], 'the same with -H2',
              times['xxhsum -H2'])
    bench.row(f'first scan of {files} files, --once', 'ms', times['scan'],
              'read + XXH3, 2 threads, no walk', times['read'])
    for what, text in (('warm', f'warm restart, {files} files, --once'),
                       ('warm to ready', 'the same, watching')):
        bench.row(text, 'ms', times[what], 'walk + stat, 1 thread', times['stat'], 1.5)
    bench.row(f'warm restart, {files} files, --once', 'ms', times['warm'], 'find -printf',
              times['find'])
    command = [bench.qallow, 'accelerator', '--no-log', '--once', '--watch']
    small, _ = bench.tree('small', 1)
    bench.once(small)
    time.sleep(0.1)  # for its one file to be old enough for not being read again
    bench.once(small)
    content = bytes_read(bench, *command, tree) - bytes_read(bench, *command, small)
    bench.row('content read by a warm restart', 'bytes', [content], limit=0)
    measure_idle(bench, tree, names, files)


def measure_memory(bench, keeper, names, title):
    files = names.read_text().splitlines()
    shared = sum(file.stat().st_blocks * 512 for file in bench.cache.iterdir())
    private = field(f'/proc/{keeper.pid}/status', 'RssAnon') * 1024
    paths = sum(map(len, files))
    for what, count in (('shared', shared), ('private', private)):
        bench.row(f'{what} memory a file, {title} files', 'bytes', [count / len(files)])
    bench.row(f'memory a file beyond its path, {title} files', 'bytes',
              [(shared + private - paths) / len(files)], limit=200)


def usage(pid):
    """CPU time in ns, and how often all threads went to sleep and were interrupted."""
    cpu = sleeps = interrupted = 0
    for task in glob.glob(f'/proc/{pid}/task/*'):
        cpu += int(pathlib.Path(task, 'schedstat').read_text().split()[0])
        sleeps += field(f'{task}/status', 'voluntary_ctxt_switches')
        interrupted += field(f'{task}/status', 'nonvoluntary_ctxt_switches')
    return cpu, sleeps, interrupted


def idle(keeper, seconds, rows=lambda: 0):
    """What it used, and the rows it wrote, in a time in which nothing was mounted or unmounted:
    the keeper looks after its root then. Tried five times."""
    with open('/proc/self/mounts') as mounts:
        poll = select.poll()
        poll.register(mounts, select.POLLPRI)
        poll.poll(0)
        for _ in range(5):
            before = *usage(keeper.pid), rows()
            changed = poll.poll(seconds * 1000)
            after = *usage(keeper.pid), rows()
            if not changed:
                break
            time.sleep(0.1)
    return [b - a for a, b in zip(before, after)]


def measure_idle(bench, tree, names, title):
    seconds = 3 if bench.options.quick else 60
    keeper = bench.start(tree)
    measure_memory(bench, keeper, names, title)
    time.sleep(2)
    cpu, sleeps, interrupted, _ = idle(keeper, seconds)
    bench.row(f'idle for {seconds} s, CPU time', 'us', [cpu / 1e3], limit=0)
    bench.row(f'idle for {seconds} s, context switches', '', [sleeps + interrupted], limit=0)
    bench.stop(keeper)
    measure_idle_with_telemetry(bench, tree, seconds)


def measure_idle_with_telemetry(bench, tree, seconds):
    """It wakes up for its rows and for nothing else, but for one row of which the time saw the
    write and not the sleep, or the other way round."""
    file = bench.work / 'idle.csv'
    keeper = bench.start(tree, '--telemetry', str(file), '--telemetry-interval', '1s')
    time.sleep(2)

    def rows():
        return len({line.split(',')[0] for line in file.read_text().splitlines()[1:]})

    cpu, sleeps, _, written = idle(keeper, seconds, rows)
    title = f'idle for {seconds} s with --telemetry each second'
    bench.row(f'{title}, CPU time', 'us', [cpu / 1e3])
    bench.row(f'{title}, wake-ups', '', [sleeps], 'rows of metrics', [written], limit=written + 1)
    bench.stop(keeper)


# --- the table ---

HEAD = ('| what | Qallow | reference in the same run | ratio | limit | reached |\n'
        '| --- | --- | --- | --- | --- | --- |')


def figure(number):
    return f'{number:,.0f}' if abs(number) >= 100 or number == int(number) else f'{number:.3g}'


def spread(row, prefix=''):
    low, high = row[prefix + 'min'], row[prefix + 'max']
    text = f'{figure(row[prefix + "median"])} {row["unit"]}'.rstrip()
    return text if low == high else f'{text} [{figure(low)} to {figure(high)}]'


def as_line(row):
    reference = f'{row["reference"]}: {spread(row, "reference_")}' if 'reference' in row else ''
    ratio = f'{row["ratio"]:.2f}' if row.get('ratio') is not None else ''
    limits = [f'{row["ratio_limit"]} ×' if 'ratio_limit' in row else '',
              f'{figure(row["limit"])} {row["unit"]}'.rstrip() if 'limit' in row else '']
    reached = {None: '', True: 'yes', False: 'NO'}[row['reached']]
    return f'| {row["what"]} | {spread(row)} | {reference} | {ratio} | ' \
           f'{" ".join(filter(None, limits))} | {reached} |'


def machine(bench):
    def output(*command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.strip()

    cpu = next((line.split(':')[1].strip() for line in open('/proc/cpuinfo')
                if line.startswith('model name')), 'an unknown kind')
    def file_system(path):
        return output('findmnt', '-no', 'FSTYPE', '-T', str(path)).split('\n')[-1]

    here = os.path.dirname(os.path.abspath(__file__))
    return {'date': datetime.date.today().isoformat(),
            'commit': output('git', '-C', here, 'rev-parse', '--short', 'HEAD'),
            'cpus': os.cpu_count(), 'cpu': cpu, 'linux': os.uname().release,
            'file_system': file_system(bench.work), 'cache_file_system': file_system(bench.cache),
            'runs': bench.options.runs, 'realtime': os.sched_getscheduler(0) == os.SCHED_RR,
            'load_before': bench.load, 'load_after': os.getloadavg()[0]}


def foot(where):
    return (f'Measured {where["date"]} at {where["commit"]} on {where["cpus"]} CPUs of '
            f'{where["cpu"]}, Linux {where["linux"]}; trees on {where["file_system"]}, caches on '
            f'{where["cache_file_system"]}; medians of {where["runs"]} runs, in brackets the least '
            f'and the greatest; load average before {where["load_before"]:.2f}, after '
            f'{where["load_after"]:.2f}' +
            (', with everything in real-time priority.' if where['realtime'] else '.'))


def write_page(page, rows, where):
    """Puts the table where the page has the last one."""
    mark = '<!-- figures -->\n'
    text = page.read_text().split(mark)[0]
    table = '\n'.join([HEAD, *map(as_line, rows)])
    page.write_text(f'{text}{mark}\n{table}\n\n{foot(where)}\n')


def measure(bench):
    watchman = Watchman(bench)
    if not bench.options.json:
        print(HEAD, flush=True)
    measure_lookups(bench)
    tree, names = bench.tree('files', bench.size(10000))
    measure_latency(bench, tree, watchman)
    measure_burst(bench, tree, names, watchman)
    bench.remove(tree)
    watchman.end()
    tree, names = bench.tree('files', bench.size(100000))
    measure_scan(bench, tree, names)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--build', required=True, help='a build folder, with the tests')
    parser.add_argument('--work', required=True, help='an empty directory for the trees')
    parser.add_argument('--cache', required=True, help='an empty directory for the caches')
    parser.add_argument('--runs', type=int, default=5)
    for flag in '--quick', '--large', '--json':
        parser.add_argument(flag, action='store_true')
    parser.add_argument('--write', type=pathlib.Path, metavar='PAGE')
    bench = Bench(parser.parse_args())
    bench.load = os.getloadavg()[0]
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        measure(bench)
    finally:
        bench.end()
    where = machine(bench)
    if bench.options.json:
        print(json.dumps({'schema': 'qallow-bench-accelerator', 'version': 1, **where,
                          'rows': bench.rows}))
    else:
        print('\n' + foot(where))
    if bench.options.write:
        write_page(bench.options.write, bench.rows, where)
    # Small trees show that everything works, not how fast it is.
    missed = any(row['reached'] is False for row in bench.rows)
    return 1 if missed and not bench.options.quick else 0


if __name__ == '__main__':
    sys.exit(main())
