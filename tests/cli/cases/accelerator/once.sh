# One epoch; none when nothing has changed; the default log stands beside the directory.
mkdir -p work/sub work/.git
echo 1 >work/file
echo 1 >work/.git/config
qallow accelerator --watch work --once --clock logical
ls
qallow accelerator --quiet --watch work --once --clock logical
echo 2 >work/file
qallow accelerator --quiet --watch work --log work.tlog --once --clock logical --json --label two
qallow accelerator --quiet --watch work --once --clock logical --include-git
