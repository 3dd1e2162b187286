# A log of a later format: both versions are named.
need python3
. "$CASES/history.bash"
history_of_three
/usr/bin/python3 - work.tlog <<'END' || { echo 'SKIP no python3-xxhash'; exit 0; }
import struct, sys
import xxhash
data = bytearray(open(sys.argv[1], 'rb').read())
for slot in (0, 4096):
    if data[slot:slot + 8] == b'QALLOWTL':
        struct.pack_into('<I', data, slot + 8, 7)
        struct.pack_into('<Q', data, slot + 120,
                         xxhash.xxh3_64_intdigest(bytes(data[slot:slot + 120])))
open(sys.argv[1], 'wb').write(data)
END
status qallow replay work.tlog
status qallow checkpoint info work.tlog
