// Package report prints the report of `ampbridge doctor` as text for a terminal,
// as JSON for programs, and as one HTML page.
//
// All of them begin with the verdict: what failed, how much passed, and the first fix.
// Text and page fold the results of many objects: results of one check that differ only
// in the names of their objects are one line, with their number and one of them as the
// example. The JSON has all of them.
//
// The judgements, and the values that this package prints, are in policy/check. The
// design of the page is in cmd/internal/page.
package report
