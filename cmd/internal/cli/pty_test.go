package cli

import (
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// pseudoTerminal returns a terminal, and a function that closes it and returns what was
// written to it.
func pseudoTerminal(t *testing.T) (screen *os.File, shown func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	testkit.Must(t, err)
	t.Cleanup(func() { _ = master.Close() })
	testkit.Must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	testkit.Must(t, err)
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	testkit.Must(t, err)
	t.Cleanup(func() { _ = screen.Close() })
	text := make(chan string, 1)
	go func() {
		// Linux ends the text with an error, once the terminal is closed.
		content, _ := io.ReadAll(master)
		text <- string(content)
	}()
	return screen, func() string {
		_ = screen.Close()
		return <-text
	}
}
