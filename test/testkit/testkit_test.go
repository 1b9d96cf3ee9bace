package testkit_test

import (
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// recorder is a test that keeps how it failed. Its Fatal panics, and record
// recovers from that.
type recorder struct {
	testing.TB
	errors []string
	fatal  string
}

func (*recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatal(args ...any) { r.fatal = fmt.Sprint(args...); panic(r) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	panic(r)
}

// record runs a function as a test.
func record(t *testing.T, test func(testing.TB)) *recorder {
	t.Helper()
	r := &recorder{TB: t}
	func() {
		defer func() {
			if end := recover(); end != nil && end != any(r) {
				panic(end)
			}
		}()
		test(r)
	}()
	return r
}

func TestGoldenComparesWithTheFile(t *testing.T) {
	setUpdate(t, false)
	path := filepath.Join(t.TempDir(), "want.txt")
	testkit.WriteFile(t, path, "a\nb\n")
	if r := record(t, func(tb testing.TB) { testkit.Golden(tb, path, "a\nb\n") }); len(r.errors) > 0 || r.fatal != "" {
		t.Errorf("equal text: %v %s", r.errors, r.fatal)
	}
	if r := record(t, func(tb testing.TB) { testkit.Golden(tb, path, []byte("a\nc\n")) }); len(r.errors) != 1 ||
		!strings.Contains(r.errors[0], path) || !strings.Contains(r.errors[0], "-update") {
		t.Errorf("other text: %q", r.errors)
	}
	if r := record(t, func(tb testing.TB) { testkit.Golden(tb, path+".missing", "") }); !strings.Contains(r.fatal, "-update") {
		t.Errorf("no file: %q", r.fatal)
	}
}

func TestGoldenWritesTheFileWithUpdate(t *testing.T) {
	setUpdate(t, true)
	path := filepath.Join(t.TempDir(), "testdata", "want.txt")
	testkit.Golden(t, path, "new\n")
	if got, err := os.ReadFile(path); err != nil || string(got) != "new\n" {
		t.Errorf("%q %v", got, err)
	}
	setUpdate(t, false)
	testkit.Golden(t, path, "new\n")
}

func TestEqualShowsTheDifference(t *testing.T) {
	testkit.Equal(t, "the list", []string{}, nil, cmpopts.EquateEmpty())
	r := record(t, func(tb testing.TB) {
		testkit.Equal(tb, "the list", []string{"a"}, []string{"b"})
		testkit.Equal(tb, "the other list", []string{}, nil)
	})
	if len(r.errors) != 2 || !strings.HasPrefix(r.errors[0], "the list ") || !strings.Contains(r.errors[0], `"a"`) ||
		!strings.HasPrefix(r.errors[1], "the other list ") {
		t.Errorf("failed with %q", r.errors)
	}
}

// setUpdate sets the flag -update until the test ends.
func setUpdate(t *testing.T, on bool) {
	t.Helper()
	before := testkit.Updating()
	set := func(on bool) { testkit.Must(t, flag.Set("update", strconv.FormatBool(on))) }
	set(on)
	t.Cleanup(func() { set(before) })
	if testkit.Updating() != on {
		t.Fatalf("the flag is %t", !on)
	}
}

func TestWithinWaitsForTheCondition(t *testing.T) {
	calls := 0
	testkit.Within(t, time.Minute, "three calls", func() bool { calls++; return calls == 3 })
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
	r := record(t, func(tb testing.TB) {
		testkit.Within(tb, time.Millisecond, "the impossible", func() bool { return false })
	})
	if !strings.Contains(r.fatal, "the impossible") || !strings.Contains(r.fatal, "1ms") {
		t.Errorf("failed with %q", r.fatal)
	}
}

func TestEventuallyEmptyWaitsForTheLastComplaint(t *testing.T) {
	complaints := []string{"first", "second", ""}
	testkit.EventuallyEmpty(t, func() string {
		next := complaints[0]
		complaints = complaints[1:]
		return next
	})
	if len(complaints) > 0 {
		t.Errorf("it did not wait for %q", complaints)
	}
}

func TestMustFailsWithTheError(t *testing.T) {
	testkit.Must(t, nil)
	if r := record(t, func(tb testing.TB) { testkit.Must(tb, os.ErrNotExist) }); r.fatal != os.ErrNotExist.Error() {
		t.Errorf("failed with %q", r.fatal)
	}
}

func TestDecodeJSONFailsWithTheText(t *testing.T) {
	var got struct{ Name string }
	testkit.DecodeJSON(t, []byte(`{"name":"a"}`), &got)
	if got.Name != "a" {
		t.Errorf("decoded %+v", got)
	}
	for _, text := range []string{"", "no JSON", `{"name":1}`} {
		if r := record(t, func(tb testing.TB) { testkit.DecodeJSON(tb, text, &got) }); r.fatal == "" || !strings.Contains(r.fatal, text) {
			t.Errorf("%q: failed with %q", text, r.fatal)
		}
	}
}

func TestExecFailsWithWhatTheProgramWrote(t *testing.T) {
	if got := testkit.Exec(t, "sh", "-c", "echo out; echo err >&2"); got != "out\n" {
		t.Errorf("got %q", got)
	}
	for program, want := range map[string]string{
		"echo out; echo err >&2; exit 3": "exit status 3\nout\nerr\n",
		"no-such-program":                "not found",
	} {
		if r := record(t, func(tb testing.TB) { testkit.Exec(tb, "sh", "-c", program) }); !strings.Contains(r.fatal, want) {
			t.Errorf("%q: failed with %q", program, r.fatal)
		}
	}
	if r := record(t, func(tb testing.TB) { testkit.Exec(tb, "/no/such/program") }); !strings.Contains(r.fatal, "/no/such/program") {
		t.Errorf("failed with %q", r.fatal)
	}
}

func TestBufferKeepsWhatSeveralGoroutinesWrite(t *testing.T) {
	var buffer testkit.Buffer
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() { _, _ = fmt.Fprintln(&buffer, "line") })
		_ = buffer.String()
	}
	group.Wait()
	if got, want := buffer.String(), strings.Repeat("line\n", 50); got != want {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}

func TestFreeAddressesCanBeListenedOn(t *testing.T) {
	port := testkit.FreePort(t)
	for _, addr := range []string{testkit.FreeAddr(t), testkit.FreeAddrOn(t, "127.0.0.2"), net.JoinHostPort("127.0.0.1", strconv.Itoa(port))} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Error(err)
			continue
		}
		testkit.Must(t, l.Close())
	}
	if host, _, _ := net.SplitHostPort(testkit.FreeAddrOn(t, "127.0.0.2")); host != "127.0.0.2" {
		t.Errorf("an address of %s", host)
	}
}
