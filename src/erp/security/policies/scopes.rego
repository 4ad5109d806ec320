# Scopes narrow a credential: AREA:TARGET:WHAT, for example providers:cache/*:read. * stands for any text, WHAT is an
# effect or an action. A credential without scopes is held by its roles alone.
package erp.scopes

import rego.v1

denials contains "no scope of the key covers it" if {
	count(input.actor.scopes) > 0
	not covered
}

covered if {
	some scope in input.actor.scopes
	parts := split(scope, ":")
	count(parts) == 3
	parts[0] in {input.target.area, "*"}
	some name in names
	matches(parts[1], name)
	does(parts[2])
}

does(what) if what == input.target.effect

does(what) if matches(what, input.target.action)

full_name := concat("/", [input.target.domain, input.target.name])

# Administration is named by its area alone (keys) or with what it is about (connections/cache/redis).
names := {full_name} if input.target.area == "providers"

names := {input.target.domain, full_name} if input.target.area != "providers"

matches("*", _)

matches(pattern, text) if pattern == text

# Only what scopes are made of is given to the regular expression; anything else covers nothing.
matches(pattern, text) if {
	contains(pattern, "*")
	regex.match("^[a-z0-9_*/.-]+$", pattern)
	regex.match(concat("", ["^", replace(replace(pattern, ".", "[.]"), "*", ".*"), "$"]), text)
}
