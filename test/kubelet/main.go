package kubelet

import (
	"os"
	"testing"
)

// Main runs the tests of a package that calls [Run]:
//
//	func TestMain(m *testing.M) { kubelet.Main(m) }
func Main(m *testing.M) {
	Init()
	os.Exit(m.Run())
}
