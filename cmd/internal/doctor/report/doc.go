// Package report prints the report of `ampbridge doctor` as text for a terminal,
// as JSON for programs, and as one HTML page.
//
// The judgements, and the values that this package prints, are in policy/check.
package report
