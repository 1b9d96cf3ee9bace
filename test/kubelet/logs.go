package kubelet

import (
	"bytes"
	"log"
	"sync"
)

// maxLog is how many bytes of a container's output are kept.
const maxLog = 1 << 20

// logs keeps the end of a container's output. It also forwards whole lines, each with the container's name.
type logs struct {
	name string
	tee  *log.Logger

	mu      sync.Mutex
	kept    []byte
	partial []byte
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = append(l.kept, b...)
	if extra := len(l.kept) - maxLog; extra > maxLog { // it may grow to twice the size, so that not every write copies
		l.kept = append([]byte(nil), l.kept[extra:]...)
	}
	l.partial = append(l.partial, b...)
	for {
		line, rest, whole := bytes.Cut(l.partial, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		l.tee.Printf("[%s] %s", l.name, line)
		l.partial = rest
	}
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.kept[max(0, len(l.kept)-maxLog):])
}
