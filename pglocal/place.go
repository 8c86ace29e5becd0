package pglocal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is who runs the server: ourselves, or someone unprivileged when we are root, whom Postgres refuses.
type account struct {
	name     string
	uid, gid int
	switched bool // we are root and become this account
}

// serverAccount chooses the account. A cluster that exists is run by its owner, so that one made as an ordinary user can be
// used as root and the other way round.
func serverAccount(pgdata string) (account, error) {
	if euid := os.Geteuid(); euid != 0 {
		return account{uid: euid, gid: os.Getegid()}, nil
	}
	if info, err := os.Stat(pgdata); err == nil {
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 {
			return account{name: fmt.Sprintf("uid %d", st.Uid), uid: int(st.Uid), gid: int(st.Gid), switched: true}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, fmt.Errorf("look up user %s: %w", name, err)
		}
		return account{name: name, uid: uid, gid: gid, switched: true}, nil
	}
	return account{}, errors.New("a Postgres server does not run as root, and there is neither a user postgres nor a user nobody to run it as")
}

// own gives path to the account.
func (a account) own(path string) error {
	if !a.switched {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// reaches tells whether the account may enter dir and everything above it.
func (a account) reaches(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // is made later, by us
		}
		if err != nil {
			return false
		}
		st, mode := info.Sys().(*syscall.Stat_t), info.Mode().Perm()
		bit := fs.FileMode(0o001)
		switch {
		case int(st.Uid) == a.uid:
			bit = 0o100
		case int(st.Gid) == a.gid:
			bit = 0o010
		}
		if mode&bit == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// elsewhere is where clusters go whose requested directory the account cannot reach.
const elsewhere = "/var/lib/aftersend"

// A requested directory and the cluster that is elsewhere for it point to each other.
const (
	pointer = "LOCATION"  // in the requested directory: where the cluster is
	origin  = "REQUESTED" // beside the cluster: for which directory
)

// place decides where the cluster of the requested directory lives: there, unless we run as root and the account that runs
// Postgres cannot get there (/root, a temporary directory of mode 0700). Then it is below /var/lib/aftersend, under a name
// made from the requested path, and a pointer is left behind.
func place(requested string) (dir string, a account, err error) {
	if requested == "" {
		return "", a, errors.New("no data directory given")
	}
	if dir, err = filepath.Abs(requested); err != nil {
		return "", a, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", a, fmt.Errorf("make data directory: %w", err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", a, err
	}
	if a, err = serverAccount(filepath.Join(dir, "data")); err != nil {
		return "", a, err
	}
	if !a.switched || a.reaches(filepath.Dir(dir)) {
		return dir, a, a.own(dir)
	}
	sum := sha256.Sum256([]byte(dir))
	there := filepath.Join(elsewhere, "postgres-"+hex.EncodeToString(sum[:6]))
	if a, err = serverAccount(filepath.Join(there, "data")); err != nil {
		return "", a, err
	}
	if err := os.MkdirAll(there, 0o755); err != nil {
		return "", a, fmt.Errorf("user %s cannot reach %s, so the cluster goes to %s: %w", a.name, dir, there, err)
	}
	if !a.reaches(filepath.Dir(there)) {
		return "", a, fmt.Errorf("user %s, who has to run Postgres because root must not, can reach neither %s nor %s: choose another data directory", a.name, dir, there)
	}
	if err := os.WriteFile(filepath.Join(there, origin), []byte(dir+"\n"), 0o644); err != nil {
		return "", a, err
	}
	return there, a, a.own(there)
}

// sweepElsewhere removes clusters whose requested directory was temporary and is gone, as tests leave them. Clusters of other
// directories stay, since a directory may be missing because a disk is. What cannot be removed is left for the next time.
func sweepElsewhere(ctx context.Context) {
	dirs, _ := filepath.Glob(filepath.Join(elsewhere, "postgres-*"))
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, origin))
		if err != nil {
			continue
		}
		requested := strings.TrimSpace(string(b))
		if rel, err := filepath.Rel(os.TempDir(), requested); err != nil || strings.HasPrefix(rel, "..") {
			continue
		}
		if _, err := os.Stat(requested); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		lock, err := lockDir(dir)
		if err != nil {
			continue // in use
		}
		if stopLeftover(ctx, filepath.Join(dir, "data")) == nil {
			_ = os.RemoveAll(dir)
		}
		lock.Release()
	}
}

// point leaves the pointer from the requested directory to where the cluster is. Where it was missing, the directory is new, and
// a cluster found elsewhere belonged to one that has been deleted since: it is removed. The caller holds the cluster's lock.
func point(requested, dir string) error {
	real, err := filepath.EvalSymlinks(requested)
	if err != nil {
		return err
	}
	if real, err = filepath.Abs(real); err != nil || real == dir {
		return err
	}
	file := filepath.Join(real, pointer)
	if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == dir {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
		return fmt.Errorf("remove the cluster of a deleted directory: %w", err)
	}
	return os.WriteFile(file, []byte(dir+"\n"), 0o644)
}

// copyTree copies the regular files and directories of src to dst, which must not exist, for the account.
func (a account) copyTree(src, dst string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		if d.IsDir() {
			if err := os.Mkdir(to, 0o700); err != nil {
				return err
			}
			return a.own(to)
		}
		return a.copyFile(path, to)
	})
}

func (a account) copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if a.switched {
		err = out.Chown(a.uid, a.gid)
	}
	if err == nil {
		_, err = io.Copy(out, in)
	}
	return errors.Join(err, out.Close())
}
