package ollama

import "github.com/ollama/ollama/api"

// Client returns a client of the running Ollama that may ask it anything, as nobody but this package can.
func (s *Server) Client() *api.Client {
	l, _ := s.sup.Peek()
	return l.client.Client
}

// Port returns where it listens.
func (s *Server) Port() int {
	l, _ := s.sup.Peek()
	return l.port
}

// Doubt has an attached Ollama asked for its word at once.
func (a *Attached) Doubt() {
	at, _ := a.sup.Peek()
	at.doubt <- struct{}{}
}
