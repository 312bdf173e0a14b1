"""A bare FastAPI endpoint: the bytes of a float32 array in, those of the prediction out."""

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from session import session

app = FastAPI()
opened = session()
SIDE = int(sys.argv[2])


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Predict."""
    image = np.frombuffer(await request.body(), np.float32).reshape(-1, 1, SIDE, SIDE)
    return Response(opened.run(["prediction"], {"image": image})[0].tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
