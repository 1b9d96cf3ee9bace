package testkit

import (
	"testing"
	"time"
)

// Timeout is how long [Eventually] waits. It is far more than any condition
// needs on a quiet machine, so that tests do not fail on a busy one.
const Timeout = 2 * time.Minute

// pause is the time between two checks of a condition.
const pause = 50 * time.Millisecond

// Eventually waits until the condition holds. After [Timeout] it fails the test with the
// condition's name.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	Within(t, Timeout, what, condition)
}

// Within is [Eventually] with a timeout of its own.
func Within(t testing.TB, timeout time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !condition(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", timeout, what)
		}
	}
}

// EventuallyEmpty waits until the complaint is "". After [Timeout] it fails the test with the
// last complaint.
func EventuallyEmpty(t testing.TB, complaint func() string) {
	t.Helper()
	text := ""
	for deadline := time.Now().Add(Timeout); ; time.Sleep(pause) {
		if text = complaint(); text == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s:\n%s", Timeout, text)
		}
	}
}
