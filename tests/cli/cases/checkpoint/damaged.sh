# A checkpoint file with a flipped bit gives nothing back.
. "$CASES/../replay/history.bash"
history_of_three
qallow checkpoint export work.tlog -o file.qckpt --quiet
printf X | dd of=file.qckpt bs=1 seek=8300 conv=notrunc status=none
status qallow checkpoint restore file.qckpt -o out
status qallow checkpoint verify file.qckpt
qallow checkpoint export work.tlog -o whole.qckpt --quiet
head -c 8500 whole.qckpt >short.qckpt
status qallow checkpoint verify short.qckpt
status qallow checkpoint restore short.qckpt -o out
test ! -e out && echo 'nothing was made'
