# Wrong usage: 64, what was expected, and a line that works.
status qallow accelerator
status qallow accelerator --log x.tlog
status qallow accelerator --watch a --file b
status qallow accelerator --watch a --threads 0
status qallow accelerator --watch a --settle 99999999999999999999
status qallow accelerator --watch a --sync=sometimes
status qallow accelerator --watch a --compress 20
status qallow accelerator --watch a --uuid 0123
status qallow accelerator --watch a --keep-time 1h --clock logical
status qallow accelerator --watch a --cpu-mask sse9
status qallow accelerator --log x.tlog --sync --stop
ls
