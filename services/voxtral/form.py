"""The form of POST /transcribe: a file, and the words of a job's input."""

from typing import Any

from services.voxtral.request import Fields


class UploadForm(Fields):
    """The fields beside the file."""

    @classmethod
    def described(cls) -> dict[str, Any]:
        """Give the OpenAPI description of the form, its file included."""
        schema = cls.model_json_schema()
        for described in schema["properties"].values():
            # A form says "nothing" by leaving a field out.
            if "anyOf" in described:
                described.update(described.pop("anyOf")[0])
                described.pop("default")
                # Swagger fills in what it makes up ("string", 0) where there is no example.
                described["example"] = ""
        file = {
            "type": "string",
            "format": "binary",
            "description": "The recording, in any format that FFmpeg reads.",
        }
        schema["properties"] = {"file": file, **schema["properties"]}
        schema["required"] = ["file"]
        content = {"multipart/form-data": {"schema": schema}}
        return {"requestBody": {"required": True, "content": content}}
