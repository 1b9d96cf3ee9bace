package session

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Store is the AWS shared credentials file that Prometheus reads, with one
// profile per destination. Its methods can be called from any goroutine.
//
// A comment in each profile has the times when the session was obtained and when it expires. So
// one rename replaces keys and times together, and a restarted sidecar
// continues with the sessions that it had.
type Store struct {
	path string
	mode fs.FileMode

	mu       sync.Mutex
	sessions map[string]Session
}

// OpenStore reads the file, if it exists. The mode, 0600 or 0644, is
// the mode in which the file will be written.
func OpenStore(path string, mode fs.FileMode) (*Store, error) {
	s := &Store{path: path, mode: mode, sessions: map[string]Session{}}
	// After a crash in WriteFile, temporary files can still hold secrets.
	temporaries, err := filepath.Glob(temporary(path) + "*")
	for _, name := range temporaries {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return s, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		s.sessions, err = parse(text)
	}
	return s, err
}

// Session returns the session of a profile; zero if there is none.
func (s *Store) Session(profile string) Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[profile]
}

// Put replaces the session of a profile, first in the file. It never
// removes a profile: Prometheus may still have a block with its name, and then a reload
// would fail.
func (s *Store) Put(profile string, session Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(s.sessions)
	next[profile] = session
	text, err := format(next)
	if err != nil {
		return err
	}
	if err := WriteFile(s.path, text, s.mode); err != nil {
		return fmt.Errorf("credentials file: %w", err)
	}
	s.sessions = next
	return nil
}

const (
	configHead = "profile "
	comment    = "# ampbridge session from %s until %s"
	idField    = "aws_access_key_id"
	keyField   = "aws_secret_access_key"
	tokenField = "aws_session_token"
)

func format(sessions map[string]Session) ([]byte, error) {
	var b bytes.Buffer
	for _, profile := range slices.Sorted(maps.Keys(sessions)) {
		s := sessions[profile]
		for _, value := range []string{profile, s.AccessKeyID, s.SecretAccessKey, s.SessionToken} {
			if value == "" || strings.ContainsAny(value, "\r\n[]#;") || strings.TrimSpace(value) != value {
				return nil, fmt.Errorf("profile %q: a value cannot be written to a credentials file", profile)
			}
		}
		// If the pod uses its own credentials file, Prometheus reads this file as
		// AWS_CONFIG_FILE, where profiles have another form of heading. SDKs read in each kind
		// of file only the form that belongs there.
		for _, head := range []string{profile, configHead + profile} {
			fmt.Fprintf(&b, "[%s]\n"+comment+"\n%s = %s\n%s = %s\n%s = %s\n\n", head,
				s.Obtained.UTC().Format(time.RFC3339Nano), s.Expires.UTC().Format(time.RFC3339Nano),
				idField, s.AccessKeyID, keyField, s.SecretAccessKey, tokenField, s.SessionToken)
		}
	}
	return b.Bytes(), nil
}

// parse reads a text that format returned. It skips everything that it does not know.
func parse(text []byte) (map[string]Session, error) {
	sessions := map[string]Session{}
	var profile string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		s := sessions[profile]
		var from, until string
		switch key, value, _ := strings.Cut(line, " = "); {
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			profile = strings.TrimPrefix(line[1:len(line)-1], configHead)
			continue
		case key == idField:
			s.AccessKeyID = value
		case key == keyField:
			s.SecretAccessKey = value
		case key == tokenField:
			s.SessionToken = value
		default:
			if n, err := fmt.Sscanf(line, comment, &from, &until); n != 2 || err != nil {
				continue
			}
			var err, err2 error
			s.Obtained, err = time.Parse(time.RFC3339Nano, from)
			s.Expires, err2 = time.Parse(time.RFC3339Nano, until)
			if errors.Join(err, err2) != nil {
				continue
			}
		}
		if profile != "" {
			sessions[profile] = s
		}
	}
	return sessions, lines.Err()
}

// WriteFile replaces a file in one step: readers see the old or the new content,
// and if the volume is full, the old content stays.
func WriteFile(path string, content []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(temporary(path))+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

func temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
}
