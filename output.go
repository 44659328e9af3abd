package caddysnake

import (
	"bufio"
	"io"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// maxLine is the longest line of a worker's output that becomes one log entry, in bytes; longer ones are split.
const maxLine = 16 << 10

// outputGrace is how long a process that a worker has started may hold its output open after the worker's end.
const outputGrace = time.Second

// output is what a worker writes to stdout and stderr.
type output struct {
	mu   sync.Mutex
	last string // the last line it wrote to stderr; guarded by mu
}

// log makes each line of r a log entry.
func (o *output) log(r io.Reader, logger *zap.Logger, stream string) {
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		text := strings.ToValidUTF8(string(line), "\uFFFD")
		if stream == "stderr" && text != "" {
			o.mu.Lock()
			o.last = text
			o.mu.Unlock()
		}
		logger.Info("worker output", zap.String("stream", stream), zap.String("line", text))
	}
}

// explain adds the last line that the worker wrote to why it ended.
func (o *output) explain(reason string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == "" {
		return reason
	}
	return reason + "; the last line it wrote: " + o.last
}
