package trust

import (
	"errors"
	"fmt"
	"text/template/parse"
)

// CheckTemplate reports why a runtime of a kind can't apply a release's chat template.
//
// Ollama does not run a template in the weights, which is written in another language: it takes the one of its own that
// is written most alike, so that a changed one, by a sentence or by a role's name, would be lost unseen. So a release
// brings it, in Ollama's language, and it has to show what callers and the release say: Ollama leaves out what a
// template does not name.
func CheckTemplate(kind, text string) error {
	if kind != "ollama" {
		return nil
	}
	if text == "" {
		return errors.New("is required: ollama does not run a template in the weights; bring one in its language, such as ollama show --template prints")
	}
	tree := parse.New("chatTemplate")
	tree.Mode = parse.SkipFuncCheck // which functions there are is up to the pinned build
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, "", "", trees); err != nil {
		return fmt.Errorf("is not in ollama's language: %w", err)
	}
	shown := map[string]bool{}
	for _, t := range trees {
		fields(t.Root, shown)
	}
	if turns := shown["System"] && shown["Prompt"]; !turns && !shown["Messages"] {
		return errors.New("does not show the conversation: it names neither .Messages, nor .System and .Prompt (ollama's templates are Go's)")
	}
	return nil
}

// fields collects the names of the fields that a template uses.
func fields(node parse.Node, found map[string]bool) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, child := range n.Nodes {
				fields(child, found)
			}
		}
	case *parse.ActionNode:
		fields(n.Pipe, found)
	case *parse.TemplateNode:
		fields(n.Pipe, found)
	case *parse.IfNode:
		branch(&n.BranchNode, found)
	case *parse.RangeNode:
		branch(&n.BranchNode, found)
	case *parse.WithNode:
		branch(&n.BranchNode, found)
	case *parse.PipeNode:
		if n != nil {
			for _, command := range n.Cmds {
				for _, arg := range command.Args {
					fields(arg, found)
				}
			}
		}
	case *parse.ChainNode:
		fields(n.Node, found)
	case *parse.FieldNode:
		found[n.Ident[0]] = true
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			found[n.Ident[1]] = true
		}
	}
}

func branch(n *parse.BranchNode, found map[string]bool) {
	fields(n.Pipe, found)
	fields(n.List, found)
	fields(n.ElseList, found)
}
