package gateway

import "net/http"

// Visits returns how many requests are in flight.
func (g *Gateway) Visits() int {
	g.visits.mu.Lock()
	defer g.visits.mu.Unlock()
	return len(g.visits.all)
}

// Handler returns the HTTP door for callers with certificates.
func (g *Gateway) Handler() http.Handler {
	handler := g.httpHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(withConnection(r.Context(), false)))
	})
}
