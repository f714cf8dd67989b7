"""Sessions, members and invitations on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, StringConstraints

from api.schemas.common import RequestBody, Resource, Text, Time
from core.members import models
from core.members.passwords import SHORTEST
from core.members.roles import Role

Email = Annotated[Text, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254, strip_whitespace=True)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=200)]
NewPassword = Annotated[SecretStr, Field(min_length=SHORTEST, max_length=200)]
Token = Annotated[Text, Field(min_length=1, max_length=200)]
GivenRole = Annotated[Role, Field(strict=False)]  # JSON has only strings for it


class SignIn(RequestBody):
    """Who signs in, and where."""

    email: Email = Field(description="Upper and lower case are the same.")
    password: Password = Field(description="The account's.")
    tenant: Annotated[Text, Field(max_length=64)] | None = Field(
        default=None, description="The id of the tenant to sign in to. Needed by whoever belongs to several."
    )


class ChangePassword(RequestBody):
    """Another password for the user who has signed in."""

    password: Password = Field(description="The one there is.")
    new_password: NewPassword = Field(description="The one there shall be.")


class Session(Resource):
    """A user who has signed in to a tenant."""

    id: str = Field(examples=["ses_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["session"] = "session"
    tenant_id: str
    user_id: str
    expires_at: Time


class WhoAmI(Resource):
    """Who calls, and what for."""

    object: Literal["caller"] = "caller"
    tenant_id: str
    key_id: str | None = Field(description="The API key, where one was sent.")
    user_id: str | None = Field(description="The user, where one has signed in.")
    role: Role | None
    scopes: list[str]


class ChangeMember(RequestBody):
    """A member's new part."""

    role: GivenRole = Field(description="Only an owner who has signed in makes owners, or changes them.")


class Member(Resource):
    """A user's part in the tenant."""

    id: str = Field(examples=["usr_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["member"] = "member"
    email: str
    name: str
    role: Role
    created_at: Time = Field(description="Since when he is a member.")

    @classmethod
    def of(cls, member: models.Membership) -> Member:
        """The member as he is shown."""
        return cls(
            id=member.user_id,
            email=member.user.email,
            name=member.user.name,
            role=Role(member.role),
            created_at=member.created_at,
        )


class CreateInvitation(RequestBody):
    """Who is to become a member, and as what."""

    email: Email = Field(description="The address of the account that the invitation is for.")
    role: GivenRole = Field(default=Role.MEMBER, description="Only an owner who has signed in makes owners.")


class AcceptInvitation(RequestBody):
    """What makes a member of whoever was invited."""

    token: Token = Field(description="The invitation's.")
    password: NewPassword = Field(description="The new account's; of an account that exists, its own.")
    name: Annotated[Text, Field(max_length=200)] = Field(default="", description="For people.")


class Invitation(Resource):
    """A place in the tenant that nobody has taken yet."""

    id: str = Field(examples=["inv_01kaj0c5pmq2v8y4dn6rx3zwte"])
    object: Literal["invitation"] = "invitation"
    email: str
    role: Role
    created_at: Time
    expires_at: Time

    @classmethod
    def of(cls, invitation: models.Invitation) -> Invitation:
        """The invitation as it is shown."""
        return cls.model_validate(_members(invitation))


class NewInvitation(Invitation):
    """An invitation that was just made."""

    token: str = Field(description="Hand it to whoever is invited. Shown this once.")

    @classmethod
    def made(cls, invitation: models.Invitation, token: str) -> NewInvitation:
        """The invitation as it is shown this once."""
        return cls.model_validate(_members(invitation) | {"token": token})


def _members(invitation: models.Invitation) -> dict[str, Any]:
    return {name: getattr(invitation, name) for name in Invitation.model_fields if hasattr(invitation, name)}
