"""Pages for people: operations for operators, the studio for customers. HTML only; what they show and do is core's."""
