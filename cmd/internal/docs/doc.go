// Package docs tests the documentation: links and anchors resolve, generated pages
// equal the code that they describe, commands run, and the language is plain.
//
// There is nothing in it but tests. These write the generated pages:
//
//	make docs
package docs
