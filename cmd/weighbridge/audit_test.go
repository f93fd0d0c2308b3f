package main

import (
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weighbridge/weighbridge/gateway/audit"
)

// auditLog is the script command "auditlog DIR KEY N": a gateway that has the key, and that has seen N releases withdrawn
// since it was started last. It makes the log if there is none.
func auditLog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: auditlog DIR KEY N")
	}
	key, err := readSigningKey(ts.MkAbs(args[1]), "")
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	c := audit.Config{Dir: ts.MkAbs(args[0]), Origin: "weighbridge/bank", Key: key, Reserve: 4096}
	if _, err := audit.Origin(c.Dir); err != nil {
		ts.Check(audit.Create(c))
	}
	l, err := audit.Open(c)
	ts.Check(err)
	for i := range n {
		l.Note(audit.Record{
			Time: time.Date(2026, 1, 2, 3, 4, i, 5e6, time.UTC), Kind: audit.KindWithdrawal, Channel: "chat", Identity: "bob", Why: "number " + strconv.Itoa(i),
		})
	}
	l.Note(audit.Record{Time: time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC), Kind: audit.KindRefusedCallers, Caller: "spiffe://bank.example/apps/teller", Count: 7, Rule: "access"})
	ts.Check(l.Close())
}
