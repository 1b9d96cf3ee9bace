package doctor

import "io"

// HTML writes the ladder as one page.
func (l Ladder) HTML(w io.Writer) error {
	_, err := io.WriteString(w, "<!doctype html>\n")
	return err
}
