package kubelet

// sandbox is everything that a container's process needs to create its root and execute its program.
type sandbox struct {
	Root         string // an empty directory of the host, where the root file system is mounted
	Mounts       []mount
	ReadOnlyRoot bool
	Hostname     string // "" keeps the host's name
	UID, GID     int    // as the container sees it; on the host the user is always this process's user
	WorkingDir   string
	Args         []string
	Env          []string

	Parent int  // id of the process that started it
	Join   bool // enter the root in rootFD instead of creating one
}

// mount binds a file or directory of the host into a container.
type mount struct {
	Source   string // host
	Target   string // container
	ReadOnly bool
}
