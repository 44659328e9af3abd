package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// pythonDecodes prints the constants of the Python side, then what its Decoder makes of each byte stream on standard
// input, one to a line. Heads are left as they are; who handles a frame refuses an unknown type.
const pythonDecodes = `
import struct, sys
from caddysnake import wire

wire.loads = bytes
print(wire.HEADER_SIZE, wire.MAX_FRAME, wire.MAX_DATA, wire.WINDOW)
read = sys.stdin.buffer.read
while size := read(4):
    data = read(struct.unpack("<I", size)[0])
    step = len(data) % 50 + 1
    decoder, shown = wire.Decoder(), ""
    try:
        for at in range(0, len(data), step):
            part = data[at : at + step]
            decoder.room()[: len(part)] = part
            decoder.fill(len(part))
            while (frame := decoder.next()) is not None:
                kind, stream, head, body = frame
                if not wire.REQUEST <= kind & 0x7F <= wire.HELD:
                    raise wire.ProtocolError
                shown += f"{kind & 0x7F} {kind >> 7} {stream} {(head or b'').hex()} {body.hex()};"
    except wire.ProtocolError:
        shown += "error"
    print(shown)
`

func TestThreat4GoAndPythonDecodeAlike(t *testing.T) {
	count := 20_000
	if os.Getenv("CADDYSNAKE_SIEGE") == "1" {
		count *= 10
	}
	random := rand.New(rand.NewPCG(4, 4))
	want := []string{fmt.Sprint(HeaderSize, MaxFrame, MaxData, Window)}
	var cases []byte
	for range count {
		data := damaged(random)
		cases = binary.LittleEndian.AppendUint32(cases, uint32(len(data)))
		cases = append(cases, data...)
		want = append(want, decoded(data))
	}
	got := pythonOutput(t, cases)
	if len(got) != len(want) {
		t.Fatalf("Python decoded %d streams of %d", len(got), len(want))
	}
	errs, frames := 0, 0
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("stream %d: Python sees %q, Go %q", i, got[i], want[i])
		}
		errs += strings.Count(want[i], "error")
		frames += strings.Count(want[i], ";")
	}
	if errs < count/10 || frames < count/10 {
		t.Errorf("%d errors and %d frames in %d streams: this tests too little", errs, frames, count)
	}
}

// damaged makes a few frames, most of them with wrong bytes, too many or too few.
func damaged(random *rand.Rand) []byte {
	var data []byte
	for range 1 + random.IntN(4) {
		start := len(data)
		data, _ = Append(data, Frame{
			Stream: random.Uint32(),
			Type:   Type(1 + random.IntN(int(Held))),
			End:    random.IntN(2) == 0,
			Head:   randomBytes(random, random.IntN(20)),
			Data:   randomBytes(random, random.IntN(100)),
		})
		switch random.IntN(6) {
		case 0: // any bit of the header
			data[start+random.IntN(HeaderSize)] ^= 1 << random.IntN(8)
		case 1: // a length about the cap
			binary.LittleEndian.PutUint32(data[start:], uint32(MaxFrame-2+random.IntN(4)))
		case 2: // a head about as long as the frame
			length := binary.LittleEndian.Uint32(data[start:])
			binary.LittleEndian.PutUint16(data[start+9:], uint16(length)-1+uint16(random.IntN(3)))
		case 3:
			data = data[:len(data)-random.IntN(len(data)-start+1)]
		}
	}
	return data
}

func randomBytes(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// decoded shows what Parse makes of a byte stream, as pythonDecodes does.
func decoded(data []byte) string {
	var shown strings.Builder
	for {
		f, size, _, err := Parse(data)
		switch {
		case err != nil && !waits(data):
			return shown.String() + "error"
		case err != nil:
			return shown.String()
		case size == 0:
			return shown.String()
		}
		end := 0
		if f.End {
			end = 1
		}
		fmt.Fprintf(&shown, "%d %d %d %x %x;", f.Type, end, f.Stream, f.Head, f.Data)
		data = data[size:]
	}
}

// waits tells whether Python still waits for the rest of the first frame: it does not look at the type before.
func waits(data []byte) bool {
	length, head := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[8:])>>8
	return length <= MaxFrame && head <= length && uint32(len(data)) < HeaderSize+length
}

func pythonOutput(t *testing.T, stdin []byte) []string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("this test needs python3 on PATH")
	}
	cmd := exec.Command(python, "-B", "-c", pythonDecodes)
	cmd.Env = append(os.Environ(), "PYTHONPATH=../../python")
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
}
