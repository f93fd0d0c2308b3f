package fair

// Callers returns how many are known.
func (q *Queue) Callers() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.callers)
}
