package gateway

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestSlowness(t *testing.T) {
	for _, tt := range []struct {
		name  string
		use   func(*slowness)
		after time.Duration // it is noticed; 0: never
	}{
		{"nothing is sent", func(*slowness) {}, 0},
		{"parts are quick", func(s *slowness) {
			for range 10 {
				s.since.Store(time.Now().UnixNano())
				time.Sleep(slowLimit / 2)
				s.since.Store(0)
			}
		}, 0},
		{"a part is slow", func(s *slowness) {
			time.Sleep(slowLimit / 2)
			s.since.Store(time.Now().UnixNano())
		}, slowLimit * 3 / 2},
		{"it ended", func(s *slowness) {
			s.since.Store(time.Now().UnixNano())
			s.stop()
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun, noticed := time.Now(), time.Duration(0)
				s := watchSlow(func() { noticed = time.Since(begun) })
				tt.use(s)
				time.Sleep(10 * slowLimit)
				synctest.Wait()
				s.stop()
				if noticed != tt.after {
					t.Errorf("noticed after %s, want %s", noticed, tt.after)
				}
			})
		})
	}
}
