# Software that acts by itself: whatever other roles it is given, it destroys nothing and administers nothing.
package erp.agents

import rego.v1

is_agent if "agent" in input.actor.roles

denials contains "agents may not do what cannot be undone" if {
	is_agent
	input.target.effect == "destructive"
}

denials contains "agents may not administer" if {
	is_agent
	input.target.area == "admin"
	input.target.effect != "read"
}
