package access

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// A condition is a compiled When.
type condition struct{ program cel.Program }

// variables are all that a condition may use, each with its type: what is misspelled is found when rules are read.
var variables = []struct {
	name string
	kind *cel.Type
	of   func(*Act) any
}{
	{"caller.id", cel.StringType, func(a *Act) any { return a.Caller.String() }},
	{"caller.trustDomain", cel.StringType, func(a *Act) any { return a.Caller.TrustDomain().Name() }},
	{"caller.path", cel.StringType, func(a *Act) any { return a.Caller.Path() }},
	{"channel", cel.StringType, func(a *Act) any { return a.Channel }},
	{"method", cel.StringType, func(a *Act) any { return a.Method }},
	{"time", cel.TimestampType, func(a *Act) any { return a.Time.In(time.UTC) }},
	{"request.api", cel.StringType, func(a *Act) any { return a.Request.API }},
	{"request.stream", cel.BoolType, func(a *Act) any { return a.Request.Stream }},
	{"request.tools", cel.BoolType, func(a *Act) any { return a.Request.Tools }},
	{"request.maxTokens", cel.IntType, func(a *Act) any {
		if a.Request.MaxTokens == 0 {
			return int64(math.MaxInt64) // else naming no number would be a way below any
		}
		return a.Request.MaxTokens
	}},
}

var environment = sync.OnceValues(func() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxCondition),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.kind))
	}
	return cel.NewEnv(options...)
})

func compile(text string) (*condition, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		var errs []string
		for _, e := range issues.Errors() {
			errs = append(errs, fmt.Sprintf("column %d: %s", e.Location.Column()+1, e.Message))
		}
		return nil, errors.New(strings.Join(errs, "; "))
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("is of type %s, and must be a bool", ast.OutputType())
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(conditionCost))
	if err != nil {
		return nil, err
	}
	return &condition{program}, nil
}

// judge returns why the condition is not met, or "".
func (c *condition) judge(a *Act) string {
	values := make(map[string]any, len(variables))
	for _, v := range variables {
		values[v.name] = v.of(a)
	}
	result, _, err := c.program.Eval(values)
	switch {
	case err != nil:
		return "its condition could not be evaluated: " + err.Error()
	case result != types.True:
		return "its condition is false"
	}
	return ""
}
