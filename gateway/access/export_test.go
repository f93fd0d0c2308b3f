package access

// Accounts returns how many accounts there are.
func (m *Meter) Accounts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.accounts)
}
