//go:build !race

package nonblock

// small is up to how many bytes a call may move of which the scheduler is not told.
const small = 4 << 10
